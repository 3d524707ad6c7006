"""The web page: controls on the left, what came of them on the right."""

from pathlib import Path

import gradio as gr

from unleak.ui import view
from unleak.ui.controls import controls
from unleak.ui.site import Site
from unleak.ui.studio import Studio
from unleak.ui.tabs import diagnosis_tab, find_tab, pair_tab, sweep_tab
from unleak.ui.visitors import Visitors

__all__ = ["HEAD", "STYLE", "build", "theme"]

HEAD, STYLE = (Path(__file__).with_name(name) for name in ("sync.html", "style.css"))
_KEPT = 3600  # seconds that a result can be downloaded
_TABS = {"Plain and fixed": pair_tab, "Find a start": find_tab, "Sweep": sweep_tab, "Diagnosis": diagnosis_tab}


def theme() -> gr.themes.Base:
    """Return a theme with fonts of the visitor's own machine: nothing is fetched from elsewhere."""
    sans = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    soft = gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=sans, font_mono=["ui-monospace", "monospace"])
    plain = {f"block_{part}_background_fill": "none" for part in ("label", "title")}
    plain |= {f"block_{part}_text_color": "*body_text_color" for part in ("label", "title")}
    plain |= {
        "input_border_width": "1px",
        "input_border_color": "*neutral_300",
        "checkbox_border_color": "*neutral_400",
    }
    return soft.set(**plain, block_title_padding="0", button_primary_background_fill="*primary_600")


def build(studio: Studio, folder: Path, visitors: Visitors) -> gr.Blocks:
    """Build the page over `studio`; what it writes goes below `folder`, Gradio's own (`GRADIO_TEMP_DIR`)."""
    site = Site(studio, folder, visitors)
    with gr.Blocks(title="unleak", analytics_enabled=False, delete_cache=(_KEPT // 4, _KEPT), fill_width=True) as page:
        gr.HTML(view.HEADER)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                asked = controls(site)
            with gr.Column(scale=5, min_width=320), gr.Tabs():
                for name, tab in _TABS.items():
                    with gr.Tab(name):
                        tab(site, asked)
    return page
