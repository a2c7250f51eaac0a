"""Says in the file that it was generated: IPTC's digital source type, in MP4 tags, PNG metadata and a JSON sidecar.

The tags inform those who look for them. They are not a watermark, they are lost when a site strips metadata, and they
prove nothing: for proof a file can be signed with C2PA afterwards (`sign_c2pa`, with the user's own certificate).
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from PIL import PngImagePlugin

from .. import __version__
from ..errors import InputError
from .files import atomic_path, require_file

IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
COMPOSITE = IPTC + "compositeWithTrainedAlgorithmicMedia"
GENERATED = IPTC + "trainedAlgorithmicMedia"
COMMENT = "AI-generated: this person was animated by software and did not say or do this."
LIBRARIES = ("torch", "numpy", "mediapipe", "av", "numba", "transformers", "gsplat")


@dataclass(frozen=True)
class Provenance:
    """How a file was made; what the sidecar holds."""

    digital_source_type: str  # an IPTC term: COMPOSITE or GENERATED
    software: str  # name and version
    created: str  # ISO 8601, UTC
    sources: dict[str, dict[str, str]]  # role (image, audio, video, motion) -> file name and SHA-256
    settings: dict[str, object]  # what else decided the result: seed, size, fps, camera ...
    checkpoint_sha256: str | None  # of the learned weights, None when only the analytic prior ran
    versions: dict[str, str] = field(default_factory=dict)  # of the libraries used


def make_provenance(
    *,
    composite: bool,
    sources: Mapping[str, str | Path],
    settings: Mapping[str, object],
    checkpoint_sha256: str | None = None,
) -> Provenance:
    """Describes a result about to be written.

    Args:
        composite: True when the rendered head stands on the real photo, False on a made-up background.
        sources: role -> file; each file is hashed.
        settings: JSON values.
    """
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Provenance(
        COMPOSITE if composite else GENERATED,
        f"ComfyUI-MGGTalk {__version__}",
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        {role: {"file": Path(path).name, "sha256": hash_file(path)} for role, path in sources.items()},
        dict(settings),
        checkpoint_sha256,
        versions,
    )


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file as hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def mp4_tags(provenance: Provenance) -> dict[str, str]:
    """Container tags for `VideoWriter(metadata=...)`; `comment` also survives a plain remux."""
    return {
        "digitalSourceType": provenance.digital_source_type,
        "comment": COMMENT,
        "software": provenance.software,
    }


def png_metadata(provenance: Provenance) -> PngImagePlugin.PngInfo:
    """For Pillow's `save(pnginfo=...)`: the source type as XMP, where IPTC defines it, and as plain text."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", _xmp(provenance))
    for key, value in mp4_tags(provenance).items():
        info.add_itxt(key, value)
    return info


def _xmp(provenance: Provenance) -> str:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        f' Iptc4xmpExt:DigitalSourceType="{provenance.digital_source_type}"'
        f' xmp:CreatorTool="{provenance.software}"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


def sidecar_path(output: str | Path) -> Path:
    """`clip.mp4` -> `clip.mp4.provenance.json`."""
    return Path(f"{output}.provenance.json")


def write_sidecar(output: str | Path, provenance: Provenance) -> Path:
    """Writes the JSON sidecar beside `output`, with the output's own hash in it, and returns its path.

    Raises:
        InputError: the folder can't be written.
    """
    path = sidecar_path(output)
    _write_json(path, {"output": Path(output).name, "output_sha256": hash_file(output), **asdict(provenance)})
    return path


def _write_json(path: Path, record: dict) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sign_c2pa(
    path: str | Path, certificate: str | Path, key: str | Path, digital_source_type: str = COMPOSITE
) -> None:
    """Signs a finished MP4 or PNG in place with the user's certificate chain and private key (PEM, ES256).

    Needs the extra `c2pa`. Tag first and sign last: any later change, also a remux, breaks or drops the signature.
    The hash in the sidecar, when there is one, is brought up to date.

    Raises:
        InputError: the extra is missing, or certificate and key do not fit.
    """
    try:
        import c2pa
    except ImportError:
        raise InputError('C2PA signing needs the c2pa library; install it with `pip install "mggtalk[c2pa]"`') from None
    path, chain = Path(path), require_file(certificate, "certificate").read_bytes()
    private_key = require_file(key, "key").read_bytes()
    action = {"action": "c2pa.created", "digitalSourceType": digital_source_type}
    manifest = {
        "claim_generator_info": [{"name": "ComfyUI-MGGTalk", "version": __version__}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
    }
    try:
        info = c2pa.C2paSignerInfo(
            alg=c2pa.C2paSigningAlg.ES256, sign_cert=chain, private_key=private_key, ta_url=None
        )
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest)) as builder:
            with atomic_path(path) as temporary:
                builder.sign_file(str(path), str(temporary), signer)
    except c2pa.C2paError as error:
        message = " ".join(str(error).split())
        raise InputError(f"C2PA signing failed ({message}); give a PEM certificate chain and its ES256 key") from None
    sidecar = sidecar_path(path)
    if sidecar.is_file():
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        _write_json(sidecar, {**record, "output_sha256": hash_file(path)})
