"""Read the small files of a pipeline before anything large is loaded: from its folder, or from the Hub."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unleak.data.reading import read_json
from unleak.zoo.configuration import check_configuration
from unleak.zoo.download import network_errors, patiently, status_of
from unleak.zoo.names import nearest

__all__ = ["Source", "one_line", "why_not_to_be_had"]

# As diffusers and transformers name them, sharded or not, with the name of a variant in between.
_WEIGHTS = r"{}/(diffusion_pytorch_model|model)[\w.-]*\.safetensors"


@dataclass(frozen=True)
class Source:
    """A folder, or a Hub id at a revision (None: the newest)."""

    location: str
    revision: str | None = None

    @property
    def is_folder(self) -> bool:
        """Return whether it is a folder on this machine."""
        return Path(self.location).is_dir()

    def file(self, name: str) -> Path | None:
        """Return a file of the pipeline on this machine, downloaded if need be; None if it has no such file.

        Raises ValueError, in one line, for a repository that cannot be had.
        """
        if self.is_folder:
            path = Path(self.location) / name
            return path if path.is_file() else None
        import huggingface_hub
        from huggingface_hub import errors

        try:
            return Path(patiently(lambda: huggingface_hub.hf_hub_download(self.location, name, revision=self.revision)))
        except network_errors(ValueError) as error:
            if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
                return None
            raise ValueError(f"model {self.location}: {why_not_to_be_had(error, self.location)}") from error

    def read(self, name: str) -> dict[str, Any]:
        """Read the JSON object in a file; empty if there is no such file. ValueError for a damaged or absurd one."""
        path = self.file(name)
        if path is None:
            return {}
        try:
            values = read_json(path, dict)
        except ValueError as error:
            raise ValueError(f"{error}; save or download the pipeline again") from error
        check_configuration(values, str(path))
        return values

    def weights(self, part: str, variant: str | None = None) -> list[int]:
        """Return the parameters of each tensor of a network, from the headers of its safetensors files.

        Of files on the Hub that are not on this machine, only the headers are read.
        """
        names = [name for name in self._names() if re.fullmatch(_WEIGHTS.format(part), name)]
        chosen = [name for name in names if variant and re.search(rf"\.{variant}[.-]", name)]
        chosen = chosen or [name for name in names if name.count(".") == 1]
        return [number for name in chosen for number in self._header(name)]

    def _names(self) -> list[str]:
        if self.is_folder:
            folder = Path(self.location)
            return [path.relative_to(folder).as_posix() for path in folder.glob("*/*.safetensors")]
        import huggingface_hub

        try:
            about = patiently(lambda: huggingface_hub.HfApi().model_info(self.location, revision=self.revision))
            return [one.rfilename for one in about.siblings or ()]
        except network_errors(ValueError) as error:
            raise ValueError(f"model {self.location}: {why_not_to_be_had(error, self.location)}") from error

    def _header(self, name: str) -> list[int]:
        import huggingface_hub
        from safetensors import SafetensorError, safe_open

        here = self.file(name) if self.is_folder else None
        if here is None:
            cached = huggingface_hub.try_to_load_from_cache(self.location, name, revision=self.revision)
            here = Path(cached) if isinstance(cached, str) else None
        try:
            if here is not None:
                with safe_open(here, framework="np") as file:
                    return [math.prod(file.get_slice(key).get_shape()) for key in file.keys()]  # noqa: SIM118
            found = huggingface_hub.parse_safetensors_file_metadata(self.location, name, revision=self.revision)
            return [tensor.parameter_count for tensor in found.tensors.values()]
        except SafetensorError as error:
            raise ValueError(f"{here}: damaged ({one_line(error)}); download it again") from error
        except network_errors(ValueError) as error:
            raise ValueError(f"model {self.location}: {why_not_to_be_had(error, self.location)}") from error

    def pinned(self) -> "Source":
        """Return the same at the commit of its model_index.json, so that all that follows is of one version."""
        if self.is_folder:
            return self
        path = self.file("model_index.json")
        return self if path is None else replace(self, revision=path.parent.name)


def why_not_to_be_had(error: BaseException, location: str = "") -> str:
    """Say what a person can do about an error of the Hub's client."""
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return "gated: accept its licence on the Hub, then log in here with `hf auth login`"
        case errors.RepositoryNotFoundError():
            return (
                f"the Hub has no such repository, or it is private; {nearest(location)}check the name, or log in with "
                "`hf auth login`"
            )
        case errors.RevisionNotFoundError():
            return "the Hub has no such revision of it"
    match status_of(error):
        case 401:
            return "the Hub does not know this token; log in again with `hf auth login`, or unset HF_TOKEN"
        case 403:
            return "the Hub refuses it to this token; ask its owners for access, or log in with `hf auth login`"
        case 429:
            return "the Hub has too many requests; wait a little, or log in with `hf auth login` for a higher limit"
        case int(status) if status >= 500:
            return f"the Hub is out of order (status {status}); try again later"
    return f"not on this machine and not to be had from the Hub: {one_line(error)}"


def one_line(error: BaseException) -> str:
    """Return the first sentence of an error."""
    return " ".join(str(error).split()).split(". ")[0][:300] or type(error).__name__
