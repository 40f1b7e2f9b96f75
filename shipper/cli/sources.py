"""The commands over the keystore: sources add, list, test, remove, rotate, new-master-key."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shipper.cli.context import settings
from shipper.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from pydantic import SecretStr

    from shipper.sources import Trial

Id = Annotated[str, typer.Argument(metavar="ID", help="The column sourceID; never change it later.")]


def add(
    source_id: Id,
    workspace: Annotated[str, typer.Option(help="The column workspaceID.")] = "default",
    key_file: Annotated[
        Path | None, typer.Option(help="File that holds the admin key. Default: ask, or read standard input.")
    ] = None,
    organization: Annotated[str | None, typer.Option(help="Sent as the OpenAI-Organization header.")] = None,
    base_url: Annotated[str, typer.Option(help="Where the Admin API is.")] = "https://api.openai.com/v1",
    no_tenant_lane: Annotated[bool, typer.Option("--no-tenant-lane", help="Read no tenant-scoped events.")] = False,
    retention_days: Annotated[int, typer.Option(min=0, max=18250, help="Days to keep rows; 0 keeps them.")] = 0,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of the source with this id.")] = False,
    no_test: Annotated[bool, typer.Option("--no-test", help="Store the key without trying it.")] = False,
) -> int:
    """Put an organization and its admin key into the keystore.

    The key comes from a file, a prompt without echo, or standard input, never from the command line. It is
    tried with one request; when that fails, nothing is stored.
    """
    import time

    from shipper.config import SourceSettings, entry_of
    from shipper.sources import NO_EVENTS
    from shipper.sources import add as store

    loaded = settings()
    # A keystore that cannot be opened is said before anybody pastes a key.
    loaded.open_keystore()
    if not source_id or not workspace:
        raise UsageError("an id or a workspace cannot be empty")
    source = SourceSettings(
        id=source_id,
        workspace=workspace,
        admin_key=_read_key(source_id, key_file),
        organization=organization,
        base_url=base_url,
        tenant_lane=not no_tenant_lane,
        retention_days=retention_days,
    )
    events = asyncio.run(store(source, loaded, replace=replace, test=not no_test, clock=time.time))
    print(f"added {source.id} to {loaded.keystore}, fingerprint of the key {entry_of(source, 0).fingerprint}")
    if events is None:
        print("the key was not tried: `shipper sources test` does it")
    else:
        print("the key may read the audit log" if events else f"the key works, but {NO_EVENTS}")
    return ExitCode.OK


def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> int:
    """List the sources in the keystore, without their keys.

    The fingerprint is what the SHA-256 of the key begins with: it tells keys apart.
    """
    from shipper.cli.render import print_json, print_table
    from shipper.model import iso

    rows = [
        {
            "id": entry.id,
            "workspace": entry.workspace,
            "base_url": entry.settings.get("base_url"),
            "organization": entry.settings.get("organization"),
            "added": iso(entry.added_at),
            "fingerprint": entry.fingerprint,
        }
        for entry in settings().open_keystore().entries()
    ]
    if as_json:
        print_json(rows)
    elif not rows:
        print("The keystore holds no source. `shipper sources add` adds one.")
    else:
        headers = ["id", "workspace", "base_url", "organization", "added", "fingerprint"]
        print_table("", headers, [["-" if row[name] is None else row[name] for name in headers] for row in rows])
    return ExitCode.OK


def try_keys(
    source_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only the source with this id.")] = None,
) -> int:
    """Try the key of each source with one request.

    Each line is ok, or the reason and what to do. `shipper check` looks at everything else a run needs.
    """
    from shipper.sources import try_keys as trials

    loaded = settings()

    async def collect() -> list[Trial]:
        done = []
        async for trial in trials(loaded, source_id):
            _print_trial(trial)
            done.append(trial)
        return done

    done = asyncio.run(collect())
    if not done:
        print("The keystore holds no source. `shipper sources add` adds one.")
    return next((trial.error.exit_code for trial in done if trial.error), ExitCode.OK)


def _print_trial(trial: Trial) -> None:
    from shipper.sources import NO_EVENTS

    if trial.error is None:
        detail = "the key may read the audit log" if trial.events else f"the key works, but {NO_EVENTS}"
        print(f"ok    {trial.source.id}: {detail}")
        return
    print(f"FAIL  {trial.source.id}: {trial.error}")
    if trial.error.hint:
        print(f"      {trial.error.hint}")


def remove(
    source_id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Take an organization and its key out of the keystore.

    Its rows stay in ClickHouse, and its key stays valid until an owner deletes it at OpenAI.
    """
    store = settings().open_keystore()
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(
                "there is no terminal to ask on; nothing was removed", hint="--yes removes without asking."
            )
        if not typer.confirm(f"Remove {source_id} and its key from {store.path}?", err=True):
            raise UsageError("not confirmed; nothing was removed")
    removed = store.remove(source_id)
    print(f"removed {removed.id}; delete its key {removed.fingerprint} at OpenAI if nothing else uses it")
    return ExitCode.OK


def rotate(
    new_master_key_file: Annotated[Path, typer.Option(help="File with the master key to use from now on.")],
) -> int:
    """Encrypt the keystore anew with another master key.

    It is replaced as a whole: at any moment either the old or the new master key opens it. Other copies of it
    stay under the old one.
    """
    from shipper.masterkey import read_master_key

    store = settings().open_keystore()
    count = store.rotate(read_master_key(new_master_key_file))
    print(f"{count} keys are now under the master key in {new_master_key_file}")
    print("point master_key_file (SHIPPER_MASTER_KEY_FILE) at it: the old one opens nothing any more")
    return ExitCode.OK


def new_master_key(file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")]) -> int:
    """Make a master key for a keystore.

    It is 256 random bits, in a new file that only its owner may read. Keep a copy apart from the keystore:
    without the master key nothing opens it.
    """
    from shipper.masterkey import write_new_master_key

    write_new_master_key(file)
    print(f"wrote a new master key to {file}; name it with SHIPPER_MASTER_KEY_FILE or master_key_file")
    return ExitCode.OK


def _read_key(source_id: str, path: Path | None) -> SecretStr:
    from pydantic import SecretStr

    from shipper.secret_text import read_secret

    if path is not None:
        return read_secret(path, what=f"the admin key of source {source_id!r}")
    if sys.stdin.isatty():
        import getpass

        text = getpass.getpass(f"Admin key of {source_id} (not shown): ")
    else:
        text = sys.stdin.read()
    if not text.strip():
        raise UsageError("no admin key came in", hint="Name a file with --key-file, or pipe the key in.")
    return SecretStr(text.strip())
