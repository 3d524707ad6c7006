import copy
import inspect
import warnings

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from unleak.core import timenoise
from unleak.core.timenoise import TimeNoise

IMAGE = slice(2, 4)


class Network(nn.Module):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.seen = []

    def forward(self, hidden_states, timestep, scale=1.0):
        self.seen.append(hidden_states.detach().clone())
        return scale * self.linear(hidden_states.movedim(1, -1))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().train()


SAMPLE, TIME = torch.zeros(3, 4, 2, 5, 5), torch.tensor([0, 500, 1000])


def test_it_noises_the_image_alone_by_the_law(network):
    TimeNoise(10.0, 5.0, spread=0.0).attach(network, channels=IMAGE)
    before = SAMPLE.clone()
    network(SAMPLE, TIME)
    (seen,) = network.seen
    assert torch.equal(SAMPLE, before)
    assert not seen[:, :2].any()
    expected = 10 * torch.sigmoid(2 * (TIME / 1000) ** 5 - 1)
    torch.testing.assert_close(seen[:, 2:].flatten(1).std(1), expected, rtol=0.2, atol=0)
    assert len(seen[:, 2:].unique()) == 3 * 2 * 2 * 25  # every element has a draw of its own


def test_channels_frames_and_layout():
    network = Network()
    TimeNoise(10.0).attach(network, channels=slice(1, 2), frames=slice(0, 1), layout="b f c h w")
    network(hidden_states=torch.zeros(1, 4, 3, 5, 4).movedim(-1, 1).contiguous(), timestep=torch.tensor([900]))
    (seen,) = network.seen
    noised = seen.abs().sum((0, 3, 4)) > 0
    assert noised.nonzero().tolist() == [[0, 1]]


@pytest.mark.parametrize("how", ["eval", "removed", "beta_m=0"])
def test_nothing_changes(network, how):
    handle = TimeNoise(0.0 if how == "beta_m=0" else 10.0).attach(network, channels=IMAGE)
    if how == "eval":
        network.eval()
    if how == "removed":
        handle.remove()
    before = torch.get_rng_state()
    network(SAMPLE, TIME)
    assert torch.equal(network.seen[0], SAMPLE)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_recomputed_forward_sees_the_same_noise(network, reentrant):
    TimeNoise(10.0).attach(network, channels=IMAGE)
    sample = SAMPLE.clone().requires_grad_()
    checkpoint(network, sample, TIME, use_reentrant=reentrant).square().sum().backward()
    first, again = network.seen
    assert first[:, 2:].all()
    assert torch.equal(first, again)


def test_each_piece_of_an_accumulated_step_has_noise_of_its_own(network):
    TimeNoise(10.0).attach(network, channels=IMAGE)
    for _ in range(2):
        network(SAMPLE, TIME).sum().backward()
    assert not torch.equal(*network.seen)


@pytest.mark.parametrize("attached", ["before", "after"])
def test_a_compiled_network(attached, monkeypatch):
    # The checks of shapes that tests put around functions cannot be compiled.
    for place, name in ((timenoise, "mu"), (timenoise, "logit_normal"), (TimeNoise, "mu")):
        monkeypatch.setattr(place, name, inspect.unwrap(getattr(place, name)))

    class Sums(nn.Module):
        def forward(self, hidden_states, timestep):
            return hidden_states.abs().sum((2, 3, 4))

    plain = Sums().train()
    compiled = torch.compile(plain, backend="eager", fullgraph=True)
    TimeNoise(10.0).attach(compiled if attached == "after" else plain, channels=IMAGE)
    out = compiled(SAMPLE, TIME)
    assert not out[:, :2].any()
    assert out[:, 2:].all()
    assert not torch.equal(out, compiled(SAMPLE, TIME))


class Blocks(nn.Module):
    """Two layers that may be computed again for their gradient; keeps what it is given."""

    def __init__(self, again):
        super().__init__()
        self.again, self.seen = again, []
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, hidden_states, timestep):
        self.seen.append(hidden_states.detach().clone())
        x = hidden_states.movedim(1, -1)
        for layer in self.layers:
            if self.again != "no":
                x = checkpoint(layer, x.requires_grad_(), use_reentrant=self.again == "reentrant")
            else:
                x = layer(x)
        return x


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def in_parts(network):
    mesh = init_device_mesh("cpu", (1,))
    for layer in network.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(network, mesh=mesh)


def adapted(network):
    return get_peft_model(network, LoraConfig(target_modules=["0", "1"]))


WRAPPERS = {"plain": lambda network: network, "ddp": DistributedDataParallel, "fsdp": in_parts, "peft": adapted}


@pytest.mark.parametrize("attached", ["before", "after"])
@pytest.mark.parametrize("again", ["no", "reentrant", "not reentrant"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_once_for_each_piece_whatever_is_around_the_network(group, wrapper, again, attached):
    torch.manual_seed(0)
    network, noise = Blocks(again).train(), TimeNoise(10.0)
    reference = copy.deepcopy(network)
    if attached == "before":
        noise.attach(network, channels=IMAGE)
    wrapped = WRAPPERS[wrapper](network)
    if attached == "after":
        noise.attach(wrapped, channels=IMAGE)
    for _ in range(2):  # pieces of one step; positions, not names
        wrapped(SAMPLE, TIME).square().mean().backward()
    first, second = network.seen
    assert not first[:, :2].any()
    assert first[:, 2:].all()
    assert not torch.equal(first, second)
    if wrapper == "peft":
        return  # its weights are others
    for seen in (first, second):
        reference(seen, TIME).square().mean().backward()
    for ours, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        gradient = ours.grad.full_tensor() if wrapper == "fsdp" else ours.grad
        torch.testing.assert_close(gradient, theirs.grad)


def test_times_of_tokens_count_by_the_noisiest(network):
    TimeNoise(10.0, 5.0, spread=0.0).attach(network, channels=IMAGE)
    network(SAMPLE[:1], torch.tensor([[0, 1000]]))
    assert network.seen[0][:, 2:].std().item() == pytest.approx(10 * torch.sigmoid(torch.tensor(1.0)).item(), rel=0.2)


def test_wrong_arguments_are_told(network):
    with pytest.raises(ValueError, match=r"Network takes no latents: it takes hidden_states, timestep, scale"):
        TimeNoise().attach(network, channels=IMAGE, argument="latents")
    with pytest.raises(ValueError, match="layout 'c f': name the axes"):
        TimeNoise().attach(network, channels=IMAGE, layout="c f")


def test_where_there_is_nothing_is_told(network):
    TimeNoise().attach(network, channels=slice(16, None))
    with pytest.raises(
        ValueError, match=r"nothing is at these channels and frames of hidden_states, \[3, 4, 2, 5, 5\]"
    ):
        network(SAMPLE, TIME)


# ---- never in silence


def trained(network, optimized=None, steps=12, *, forward=True):
    """Train a network as somebody else's trainer does; the warnings."""
    optimizer = torch.optim.SGD((optimized or network).parameters(), lr=0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            if forward:
                network(torch.ones(1, 4, 1, 2, 2), torch.tensor([900.0])).sum().backward()
            optimizer.step()
    return [str(one.message) for one in caught]


def test_a_network_that_is_trained_in_evaluation_mode_is_told_once():
    network = Network().eval()
    with TimeNoise(10.0).attach(network, channels=IMAGE):
        (said,) = trained(network)
        assert said == (
            "TimeNoise has had no effect on this Network: 10 forward passes with gradients were in evaluation mode:"
            " call .train() before them, or attach with always=True."
        )
        assert trained(network) == []
    adapters = nn.Linear(1, 1)  # kept outside, as some trainers do
    with TimeNoise(10.0).attach(network, channels=IMAGE):
        assert len(trained(network, adapters)) == 1


def test_a_trainer_that_goes_around_forward_is_told_once():
    network, other = Network().train(), nn.Linear(1, 1)
    with TimeNoise(10.0).attach(network, channels=IMAGE):
        assert trained(other, forward=False) == []  # what is trained there is another network
        (said,) = trained(network, forward=False)
        assert "in 10 optimizer steps its forward was not called once in training" in said
        assert trained(network, forward=False) == []
    network.requires_grad_(False)
    with TimeNoise(10.0).attach(network, channels=IMAGE):
        assert len(trained(network, other, forward=False)) == 1


def test_nothing_is_said_where_it_acts_and_validation_is_no_training():
    from torch.optim import optimizer

    others = dict(optimizer._global_optimizer_post_hooks)  # of tests that ran before and keep theirs attached
    network = Network().train()
    with TimeNoise(10.0).attach(network, channels=IMAGE):
        with torch.no_grad():
            for _ in range(20):
                network.eval()(torch.ones(1, 4, 1, 2, 2), torch.tensor([900.0]))
        assert trained(network.train()) == []
    assert dict(optimizer._global_optimizer_post_hooks) == others  # nothing of ours stays behind


def test_always_noises_in_evaluation_mode_where_gradients_are_recorded():
    network = Network().eval()
    x, t = torch.ones(1, 4, 1, 2, 2), torch.tensor([900.0])
    with TimeNoise(10.0).attach(network, channels=IMAGE, always=True):
        assert not torch.equal(network(x, t), network(x, t))
        with torch.no_grad():
            assert torch.equal(network(x, t), network(x, t))  # validation
        assert trained(network) == []
