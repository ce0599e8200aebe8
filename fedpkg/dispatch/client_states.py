"""What tasks leave on this machine: replies, and clients' states, with a folder per version, named by its token."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from fedpkg.dispatch.site import Site
from fedpkg.files import damage_of, fsync_folder, fsync_tree, remove_tree
from fedpkg.log import event
from fedpkg.waist.answer import Answer
from fedpkg.waist.order import Order, ReplySpec
from fedpkg.waist.place import STATES, reply_of, states_folder

logger = logging.getLogger("fedpkg.dispatch")


class LocalStates:
    """The `ClientStates` of executors that run tasks on this machine."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def damage(self, session_id: str, client_id: str, token: str, checksum: str | None = None) -> str:
        try:
            folder = self._site.version(session_id, client_id, token)
        except FileNotFoundError:
            return f"is missing: {token!r:.60} is not a valid token"
        if checksum is None:
            return "" if folder.is_dir() else f"is missing: {folder}"
        return damage_of(folder, checksum)

    def commit(self, session_id: str, states: Mapping[str, str | None]) -> None:
        saved = [self._site.version(session_id, client, token) for client, token in states.items() if token is not None]
        for folder in saved:
            fsync_tree(folder)
            fsync_folder(folder.parent)
        session = self._site.session_folder(session_id)
        for folder in [session / STATES, session, session.parent] if saved else ():
            fsync_folder(folder)

    def forget(self, session_id: str, states: Mapping[str, str | None]) -> None:
        for client_id, current in states.items():
            folder = states_folder(self._site.session_folder(session_id), client_id)
            if folder.is_dir():
                for version in folder.iterdir():
                    if version.name != current:
                        remove_version(version)

    def discard(self, session_id: str, client_id: str, token: str) -> None:
        remove_version(self._site.version(session_id, client_id, token))


class OnSite:
    """Base of executors whose tasks leave replies and states on this machine."""

    is_ours = True

    def __init__(self, site: Site) -> None:
        self.site = site
        self.states = LocalStates(site)

    def know(self, spec: ReplySpec, digest: str) -> None:
        self.site.know(spec, digest)

    def fetch(self, order: Order, answer: Answer, into: Path) -> None:
        reply = reply_of(self.site.home / answer.folder)
        if reply != into:  # otherwise they are already where they are kept
            remove_tree(into)
            into.parent.mkdir(parents=True, exist_ok=True)
            reply.rename(into)

    def discard(self, order: Order, answer: Answer) -> None:
        remove_tree(reply_of(self.site.home / answer.folder))
        if answer.state is not None:
            self.states.discard(order.session_id, order.client_id, answer.state)


def remove_version(version: Path) -> bool:
    """Remove a version of a client's state that no row of the store names; False if its path cannot be reused.

    A version that the client has made impossible to remove stays, and `fedpkg home check` lists it.
    """
    try:
        remove_tree(version)
    except OSError as error:
        event(logger, logging.WARNING, "state.left", path=version, error=error)
        return not os.path.lexists(version)  # the parent folder may be unreadable: another name would not help
    return True
