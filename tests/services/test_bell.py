"""Who waits is told."""

from __future__ import annotations

import time

from recognition.services import bell


def test_what_is_embedded_right_after_somebody_began_to_wait_is_heard(monkeypatch):
    monkeypatch.setattr(bell, "_LOOK_EVERY", 60.0)
    for catalogue_id in range(20):
        with bell.while_embedding(catalogue_id) as sleep:
            channel = f"shitu:embedded:{catalogue_id}"
            assert bell._redis().pubsub_numsub(channel) == [(channel.encode(), 1)]
            bell.embedded(catalogue_id)
            began = time.monotonic()
            sleep(began + 60)
            assert time.monotonic() - began < 30


def test_many_ends_wake_once(monkeypatch):
    with bell.while_embedding(1) as sleep:
        for _ in range(5):
            bell.embedded(1)
        sleep(time.monotonic() + 60)
        before = time.monotonic()
        sleep(before + 0.2)
        assert time.monotonic() - before >= 0.2, "all five were heard by the first"
