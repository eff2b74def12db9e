"""A vendor's signature: an in-toto statement in a DSSE envelope, by Ed25519.

https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md,
https://github.com/secure-systems-lab/dsse/blob/master/envelope.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from pathlib import Path
from typing import Any

from pytest_vdist.certificate.report.folder import (
    ATTESTATION,
    PUBLIC_KEY,
    REPORT,
    SUMS,
    Report,
    ReportError,
    parse_report,
    read_report,
    read_text,
)
from pytest_vdist.certificate.report.html import worst_verdict
from pytest_vdist.certificate.report.sums import digest_of, sums_problems

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
PAYLOAD = "application/vnd.in-toto+json"
_WARNED = ("conformant_with_waivers", "partial", "incomplete")
_BAD = ("failed", "hang", "crash", "error", "flaky")


def sign(folder: Path, key_file: Path) -> Path:
    """Sign the report of a folder and its sums by a private Ed25519 key (PEM); return the envelope's file.

    Raises ReportError for a folder that has changed, or a file that holds no such key.
    """
    serialization, ed25519, _, unsupported = _library()
    problems = sums_problems(folder)
    if problems:
        raise ReportError(f"{folder} is not signed, it is not as it was written: {'; '.join(problems)}")
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, unsupported) as error:
        raise ReportError(f"{key_file} holds no private key in PEM without a password: {error}") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ReportError(
            f"{key_file} must hold an Ed25519 key, got {type(key).__name__}; "
            f"make one: openssl genpkey -algorithm ed25519 -out vendor.pem"
        )
    public = _pem(key.public_key(), serialization)
    payload = json.dumps(statement(folder, read_report(folder)), sort_keys=True).encode("utf-8")
    signature = key.sign(_authenticated(payload))
    envelope = {
        "payloadType": PAYLOAD,
        "payload": base64.b64encode(payload).decode("ascii"),
        "signatures": [{"keyid": _key_id(public), "sig": base64.b64encode(signature).decode("ascii")}],
    }
    (folder / PUBLIC_KEY).write_bytes(public)
    (folder / ATTESTATION).write_text(_envelope_text(envelope), encoding="utf-8")
    return folder / ATTESTATION


def statement(folder: Path, report: Report) -> dict[str, Any]:
    """Return the in-toto statement about report.json and SHA256SUMS, which names every other file."""
    verdict = worst_verdict(report)
    tests = report["tests"]
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": digest_of(folder / name)}} for name in (REPORT, SUMS)
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "result": "PASSED" if verdict == "conformant" else "WARNED" if verdict in _WARNED else "FAILED",
            "configuration": [
                {
                    "name": f"pytest-vdist {report['suite']['version']}",
                    "digest": {"sha256": report["suite"]["requirements_digest"]},
                }
            ],
            "passedTests": [each["test"] for each in tests if each["outcome"] == "passed"],
            "warnedTests": [each["test"] for each in tests if each["outcome"] not in {"passed", *_BAD}],
            "failedTests": [each["test"] for each in tests if each["outcome"] in _BAD],
        },
    }


def signature_problems(folder: Path, trusted: Path | None) -> list[str]:
    """Return what is wrong with the signature; `trusted` is the vendor's public key, if it is known.

    Without a signature there is nothing wrong unless a key was given.
    """
    if not (folder / ATTESTATION).is_file():
        left = f"{PUBLIC_KEY} is there, {ATTESTATION} is missing" if (folder / PUBLIC_KEY).exists() else ""
        asked = "the folder is not signed, a key was given" if trusted else ""
        return [problem for problem in (left, asked) if problem]
    try:
        return _problems(folder, trusted)
    except ReportError as error:
        return [str(error)]


def _problems(folder: Path, trusted: Path | None) -> list[str]:
    serialization, ed25519, invalid, unsupported = _library()
    text = read_text(folder / ATTESTATION)
    envelope = parse_report(text, source=ATTESTATION)
    public = read_text(folder / PUBLIC_KEY).encode("utf-8")
    try:
        (signature,) = envelope["signatures"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signed = base64.b64decode(signature["sig"], validate=True)
        key = serialization.load_pem_public_key(public)
        if not isinstance(key, ed25519.Ed25519PublicKey):
            return [f"{PUBLIC_KEY} holds no Ed25519 key"]
        same_text = text == _envelope_text(envelope) and _pem(key, serialization) == public
        same_base64 = base64.b64encode(payload).decode() == envelope["payload"]
        if not (same_text and same_base64 and base64.b64encode(signed).decode() == signature["sig"]):
            return [f"{ATTESTATION} or {PUBLIC_KEY} is not as `vdist sign` wrote it"]
        if envelope.get("payloadType") != PAYLOAD or signature.get("keyid") != _key_id(public):
            return [f"{ATTESTATION} names another key than {PUBLIC_KEY}, or another type of payload"]
        key.verify(signed, _authenticated(payload))
        claimed = json.loads(payload)
    except invalid:
        return [f"the signature in {ATTESTATION} does not fit what it signs"]
    except (KeyError, TypeError, ValueError, binascii.Error, unsupported) as error:
        return [f"{ATTESTATION} or {PUBLIC_KEY} is malformed: {error}"]
    problems = []
    if not all((folder / name).is_file() for name in (REPORT, SUMS)):
        problems.append(f"the signature is of {REPORT} and {SUMS}, of which one is missing")
    elif claimed != statement(folder, read_report(folder)):
        problems.append(f"the signature is of another {REPORT} or {SUMS}")
    if trusted is not None and read_text(trusted).strip() != public.decode("utf-8").strip():
        problems.append(f"the folder is signed by the key {_key_id(public)[:12]}…, which is not {trusted}")
    return problems


def _authenticated(payload: bytes) -> bytes:
    """Return what DSSE signs: type and payload with their lengths."""
    kind = PAYLOAD.encode("ascii")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _envelope_text(envelope: dict[str, Any]) -> str:
    return json.dumps(envelope, indent=1, sort_keys=True) + "\n"


def _key_id(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()


def _pem(key: Any, serialization: Any) -> bytes:
    pem: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem


def _library() -> tuple[Any, Any, Any, Any]:
    """Return what of cryptography is used. Raises ReportError where it is not installed: it is an extra."""
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
    except ImportError:
        raise ReportError(
            "signatures need the library cryptography: pip install 'pytest-vdist[sign]'"
        ) from None
    return serialization, ed25519, InvalidSignature, UnsupportedAlgorithm
