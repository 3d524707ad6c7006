"use strict";
// The first video is the clock: the others follow it, and are put right when they are more than half a frame off.
const $ = id => document.getElementById(id);
const videos = [...document.querySelectorAll("video")], bars = [...document.querySelectorAll(".pairs")];
const frames = +document.body.dataset.frames, fps = +document.body.dataset.fps, clock = videos[0];
let playing = false, shown = -1, wanted = 0, run = 0;

const middle = k => (k + 0.5) / fps;                      // a time well within frame k
const frameAt = time => Math.min(frames - 1, Math.max(0, Math.floor(time * fps + 1e-3)));

function show(k) {
  if (k === shown) return;
  shown = k;
  $("at").value = k + 1;
  $("where").textContent = `${k + 1} / ${frames}`;
  for (const bar of bars) [...bar.children].forEach((rect, i) => rect.classList.toggle("on", i === k - 1));
}
function seek(k) {
  wanted = Math.min(frames - 1, Math.max(0, k));
  for (const video of videos) video.currentTime = middle(wanted);
  show(wanted);
}
function play(on) {
  if (on === playing) return;
  playing = on;
  document.body.classList.toggle("playing", on);
  if (!on) {
    for (const video of videos) video.pause();
    return seek(frameAt(clock.currentTime));
  }
  start(shown >= frames - 1 ? 0 : middle(shown));
}
async function start(from) {
  const mine = ++run;
  const arrived = videos.map(video => new Promise(done => video.addEventListener("seeked", done, {once: true})));
  for (const video of videos) {
    video.pause();
    video.currentTime = from;
  }
  await Promise.all(arrived);                             // or those that seek fast would run ahead
  if (!playing || mine !== run) return;
  for (const video of videos) {
    video.playbackRate = +$("speed").value;
    video.play().catch(() => mine === run && play(false));
  }
  requestAnimationFrame(() => follow(mine));
}
function follow(mine) {
  if (!playing || mine !== run) return;
  if (clock.ended) return $("loop").checked ? start(0) : play(false);
  for (const video of videos)
    if (!video.seeking && Math.abs(video.currentTime - clock.currentTime) > 0.5 / fps) {
      video.currentTime = clock.currentTime;
      if (video.paused) video.play().catch(() => mine === run && play(false));  // it had come to its end before the clock
    }
  show(frameAt(clock.currentTime));
  requestAnimationFrame(() => follow(mine));
}
function step(by) { play(false); seek(shown + by); }

document.querySelector(".bar").hidden = false;
for (const video of videos) {
  video.controls = false;
  video.addEventListener("click", () => play(!playing));
}
$("play").onclick = () => play(!playing);
$("back").onclick = () => step(-1);
$("next").onclick = () => step(1);
$("at").oninput = event => { play(false); seek(event.target.value - 1); };
$("speed").onchange = event => { for (const video of videos) video.playbackRate = +event.target.value; };
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, button")) return;
  const does = {" ": () => play(!playing), ArrowLeft: () => step(-1), ArrowRight: () => step(1),
                Home: () => step(-frames), End: () => step(frames), l: () => $("loop").click()}[event.key];
  if (does) { event.preventDefault(); does(); }
});
show(0);
if (!matchMedia("(prefers-reduced-motion: reduce)").matches)
  Promise.all(videos.map(video => video.readyState > 2 || new Promise(ready => video.addEventListener("canplay", ready, {once: true}))))
    .then(() => play(true));
