import torch
from diffusers.utils.torch_utils import randn_tensor

from unleak.attach.session import _First, _with_globals


def prepare(shape: tuple[int, ...], *, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return scale * randn_tensor(shape, generator=generator), randn_tensor(shape, generator=generator)


def test_only_the_first_draw_of_a_copy_is_changed() -> None:
    plain = prepare((3,))
    changed = _with_globals(prepare, randn_tensor=_First(randn_tensor, lambda eps: 10 + eps))((3,))
    torch.testing.assert_close(changed[0], plain[0] + 20)
    assert torch.equal(changed[1], plain[1])
    assert torch.equal(prepare((3,))[0], plain[0])  # the module's own function sees its own globals
