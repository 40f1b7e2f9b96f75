"""TLS towards both sides: whom we trust, who we are, and what may go without it. Nothing here knows of HTTP."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from typing import NamedTuple, NoReturn

from shipper.errors import ConfigError
from shipper.secret_text import shown_path

# Alerts with which a server says that it wants another certificate from us, or wants one at all. The names are the
# ends of OpenSSL's: the part before differs between its versions.
_ALERTS = {
    "ACCESS_DENIED",
    "BAD_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REQUIRED",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_UNKNOWN",
    "HANDSHAKE_FAILURE",
    "UNKNOWN_CA",
    "UNSUPPORTED_CERTIFICATE",
}


class Refusal(NamedTuple):
    """Why a TLS connection cannot come about however often it is tried, and what to do."""

    message: str
    hint: str


def client_context(
    ca_file: Path | None, cert_file: Path | None, key_file: Path | None, *, prefix: str = ""
) -> ssl.SSLContext:
    """What to connect with: names are checked, and exactly the authorities of `ca_file` trusted (None: the system's).

    `prefix` is what the settings' names begin with. Raises ConfigError for files that cannot be read, hold something
    else, or do not belong together; for a private key with a passphrase, which nobody is there to type.
    """
    context = _trusting(ca_file, f"{prefix}ca_file")
    if cert_file is None:
        if key_file is not None:
            raise ConfigError(
                f"{prefix}client_key_file is set without {prefix}client_cert_file",
                hint="A client certificate is both; one file may hold both, then name it as client_cert_file.",
            )
        return context
    for path, name in ((cert_file, "client_cert_file"), (key_file, "client_key_file")):
        if path is not None:
            _check_readable(path, f"{prefix}{name}")
    try:
        context.load_cert_chain(cert_file, key_file, password=_no_passphrase)
    except _PassphraseNeeded:
        raise ConfigError(
            f"the private key of {prefix}client_cert_file {cert_file} is encrypted",
            hint="Decrypt it (openssl pkey -in … -out …) and protect the file by its mode.",
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            what = "the private key is not the one of the certificate"
        else:
            what = "expected a certificate and its private key in PEM form"
        names = f"{prefix}client_cert_file {cert_file}" + (
            f" and {prefix}client_key_file {key_file}" if key_file else ""
        )
        raise ConfigError(f"{names}: {what}") from None
    return context


def refusal(error: BaseException, *, prefix: str = "") -> Refusal | None:
    """Why a failed connection will fail until somebody acts: one side does not accept the other's certificate.

    `error` is what the HTTP library raised, with the TLS error somewhere in it. None for everything else.
    """
    chain = _chain(error)
    if any(isinstance(inner, ssl.SSLCertVerificationError) for inner in chain):
        said = next(filter(None, (getattr(inner, "verify_message", "") for inner in chain)), "")
        return Refusal(
            "TLS failed: the server's certificate is not trusted" + (f" ({said.rstrip('.')})" if said else ""),
            f"Set {prefix}ca_file to the certificates of the authority that signed it, often that of a proxy. "
            "The host in the address must be one that the certificate names.",
        )
    for inner in chain:
        # aiohttp's own errors are of this type as well, and have no reason.
        alert = (
            (getattr(inner, "reason", None) or "").rpartition("_ALERT_")[2] if isinstance(inner, ssl.SSLError) else ""
        )
        if alert in _ALERTS:
            return Refusal(
                f"TLS failed: the server refused the connection ({alert.lower().replace('_', ' ')})",
                f"It may demand a client certificate, or another one: {prefix}client_cert_file and "
                f"{prefix}client_key_file.",
            )
    return None


def is_loopback(host: str) -> bool:
    """Whether packets to this host never leave the machine: 127.0.0.0/8, ::1 or localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_plaintext(secret: str, to: str, *, setting: str) -> NoReturn:
    """Raise ConfigError: `secret`, named and not shown, would go unencrypted to the host `to`."""
    raise ConfigError(
        f"{setting}: {secret} would be sent unencrypted to {to}",
        hint="Use https://. Where the network between is yours alone, set allow_plaintext: true.",
    )


class _PassphraseNeeded(Exception):  # noqa: N818 - not an error: an answer to OpenSSL's question
    pass


def _no_passphrase() -> str:
    # Without it OpenSSL asks on the terminal and waits.
    raise _PassphraseNeeded


def _trusting(ca_file: Path | None, setting: str) -> ssl.SSLContext:
    if ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:  # ssl.SSLError is one
        what = "unreadable" if isinstance(error, ssl.SSLError) else error.strerror or "unreadable"
        raise ConfigError(f"{setting} {ca_file}: {what}, expected PEM certificates") from None


def _check_readable(path: Path, setting: str) -> None:
    """OpenSSL does not say which of the two files it could not read."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{setting} {shown_path(path)}: {error.strerror or 'unreadable'}") from None


def _chain(error: BaseException) -> list[BaseException]:
    """The error and those that it was made of: its causes, and what aiohttp puts into its own as an attribute."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, BaseException) and not any(inner is one for one in found):
            found.append(inner)
            waiting += [inner.__cause__, getattr(inner, "os_error", None), getattr(inner, "certificate_error", None)]
    return found
