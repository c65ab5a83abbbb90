"""Sound: the low-level descriptors of eGeMAPS by openSMILE."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import numpy as np

from gmsa.errors import ConfigError
from gmsa.media.protocol import Media
from gmsa.media.types import RATE, Missing, Steps
from gmsa.system.packages import load_package


class OpenSmile:
    """The 25 low-level descriptors of eGeMAPS v02 by openSMILE, 100 a second; not for commercial use.

    Eyben et al.: The Geneva Minimalistic Acoustic Parameter Set, IEEE Trans. Affective Computing 7(2), 2016. The
    licence of openSMILE, which audEERING gives, forbids commercial use: so it is an extra of its own.

    Raises:
        ConfigError: the package opensmile is not installed.
    """

    name, modality, version = "opensmile", "audio", 1

    def __init__(self) -> None:
        try:
            package = load_package("opensmile", "'audio: opensmile'", "opensmile")
        except ConfigError as error:
            raise ConfigError(f"{error}; its licence (audEERING) forbids commercial use") from None
        self._smile = package.Smile(
            feature_set=package.FeatureSet.eGeMAPSv02,
            feature_level=package.FeatureLevel.LowLevelDescriptors,
            num_workers=1,
        )
        self.columns = tuple(self._smile.feature_names)

    def fingerprint(self) -> Mapping[str, str]:
        """The set of features, and the version of openSMILE."""
        return {"features": "eGeMAPSv02 LowLevelDescriptors", "opensmile": version("opensmile")}

    def __call__(self, media: Media) -> Steps:
        """Extracts the steps of the whole sound.

        Raises:
            Missing: there is none, or it is too short for a step.
        """
        samples = media.samples()
        if samples is None or not len(samples):
            raise Missing("sound")
        table = self._smile.process_signal(samples, RATE)
        if not len(table):
            raise Missing(f"a step in {len(samples) / RATE:.2f} s of sound")
        start, stop = (
            table.index.get_level_values(name).total_seconds().to_numpy(np.float64) for name in ("start", "end")
        )
        return Steps(table.to_numpy(np.float32), start, stop)
