"""Slicing pages and deciding on the next one."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from shipper.errors import ApiProtocolError
from shipper.fetch import paging
from shipper.fetch.paging import Pager, envelope_events, moments, parse_page
from shipper.fetch.scan import IncompleteJSONError
from shipper.model import Page

# Events that the strict parser refuses, each for another reason.
POISON = {
    "lone surrogate": rb'{"id":"p","name":"\ud800"}',
    "surrogate then text": rb'{"id":"p","name":"\udc00 x \\\" y"}',
    "deep": b'{"id":"p","x":' + b"[" * 3000 + b"]" * 3000 + b"}",
    "very deep": b'{"id":"p","x":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}",
    "control character": b'{"id":"p","name":"a\x00b\nc"}',
    "bad escape": rb'{"id":"p","name":"\x41"}',
    "NaN": b'{"id":"p","x":NaN,"y":-Infinity}',
    "leading zero": b'{"id":"p","x":007}',
    "unquoted word": b'{"id":"p","x":undefined}',
}
# And some that it takes.
PLAIN = {
    "spaces": b'{ "id" :\t"a" ,\r\n "x" : [ 1 , 2 ] }',
    "invalid utf-8": b'{"id":"a","x":"\xff\xfe\xc0"}',
    "big number": b'{"id":"a","x":123456789012345678901234567890,"y":1e999}',
    "brackets in strings": rb'{"id":"a","x":"]}[{\"],","y":"\\"}',
    "duplicate keys": b'{"id":"a","id":"b"}',
    "no object": b"17",
    "null": b"null",
    "text": b'"a ] b"',
    "empty": b"{}",
}


def body(*events: bytes, tail: bytes = b',"has_more":true,"last_id":"z"') -> bytes:
    return b'{"object":"list","data":[' + b",".join(events) + b"]" + tail + b"}"


@pytest.mark.parametrize("event", [*PLAIN.values(), *POISON.values()], ids=[*PLAIN, *POISON])
def test_an_event_is_sliced_byte_for_byte_and_takes_no_other_with_it(event: bytes) -> None:
    """Whatever is inside: its own slice, and its neighbours' too."""
    others = [b'{"id":"%d"}' % number for number in range(99)]
    page = parse_page(body(*others[:50], event, *others[50:]))
    assert page == Page((*others[:50], event, *others[50:]), has_more=True, last_id="z")


@pytest.mark.parametrize("poison", [b"", *POISON.values()], ids=["strict", *POISON])
@pytest.mark.parametrize("seed", range(25))
def test_random_pages_come_apart_into_exactly_the_bytes_they_were_made_of(seed: int, poison: bytes) -> None:
    """Random values, random white space, with and without an event that forces the slow path."""
    chance = random.Random(seed)
    events = [_encode(chance, _value(chance, 3)) for _ in range(chance.randrange(1, 12))]
    if poison:
        events.insert(chance.randrange(len(events) + 1), poison)

    def space() -> bytes:
        return "".join(chance.choices(" \t\r\n", k=chance.randrange(3))).encode()

    members = [
        b'"object"' + space() + b":" + space() + b'"list"',
        b'"data"' + space() + b":" + space() + b"[" + b",".join(space() + event + space() for event in events) + b"]",
        b'"has_more"' + space() + b":" + space() + b"true",
        b'"last_id"' + space() + b":" + space() + b'"\\u0063-9"',
        b'"extra"' + space() + b":" + _encode(chance, _value(chance, 3)),
    ]
    chance.shuffle(members)
    text = space() + b"{" + b",".join(space() + member + space() for member in members) + b"}" + space()
    assert parse_page(text) == Page(tuple(events), has_more=True, last_id="c-9")


@pytest.mark.parametrize("poison", [b'{"id":"a"}', POISON["lone surrogate"]], ids=["strict", "slow"])
def test_a_page_cut_anywhere_is_never_a_page(poison: bytes) -> None:
    """Each prefix of a body is told apart from a whole one."""
    whole = body(b'{"id":"e\\"]}","n":[1,{}]}', poison)
    for length in range(len(whole)):
        with pytest.raises(IncompleteJSONError):
            parse_page(whole[:length])
    assert len(parse_page(whole).events) == 2


@pytest.mark.parametrize("between", [b"", b"\n", b"\r\n", b" \n\n"])
@pytest.mark.parametrize("poison", [b'{"id":"b"}', POISON["deep"]], ids=["strict", "slow"])
def test_several_documents_in_one_body_are_one_page(between: bytes, poison: bytes) -> None:
    """All their events in order; the last has_more and the last last_id count."""
    text = between.join(
        [
            body(b'{"id":"a"}', tail=b',"has_more":true,"last_id":"a"'),
            body(poison, tail=b',"has_more":true,"last_id":"b"'),
            body(b'{"id":"c"}', tail=b',"has_more":false,"last_id":null'),
        ]
    )
    assert parse_page(text + between) == Page((b'{"id":"a"}', poison, b'{"id":"c"}'), has_more=False, last_id="b")


def test_a_second_document_that_is_cut_cuts_the_body() -> None:
    """Nothing of it is taken: the whole body is asked for again."""
    with pytest.raises(IncompleteJSONError):
        parse_page(body(b'{"id":"a"}') + b"\n" + body(b'{"id":"b"}')[:-1])


def test_a_byte_order_mark_is_not_part_of_the_page() -> None:
    """Some gateways add one."""
    assert parse_page(b"\xef\xbb\xbf" + body(b'{"id":"a"}')).events == (b'{"id":"a"}',)


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b',"has_more":false', (False, None)),
        (b',"has_more":false,"last_id":"z"', (False, "z")),
        (b',"has_more":true', (True, "e2")),
        (b',"has_more":true,"last_id":null', (True, "e2")),
        (b',"has_more":true,"last_id":""', (True, "e2")),
        (b',"has_more":true,"last_id":7', (True, "e2")),
        (b',"has_more":true,"last_id":"\\ud800"', (True, "e2")),
        (b',"has_more":true,"last_id":"\xff"', (True, "e2")),
        (b',"has_more":null,"last_id":"z"', (True, "z")),
        (b"", (True, "e2")),
    ],
)
@pytest.mark.parametrize("last", [b'{"id":"e2"}', rb'{"x":["\ud800"],"id":"e2"}'], ids=["strict", "slow"])
def test_flag_and_cursor_of_a_page(tail: bytes, expected: tuple[bool, str | None], last: bytes) -> None:
    """Without has_more a page with events has a successor; without last_id the last event's id is the cursor."""
    page = parse_page(body(b'{"id":"e1"}', last, tail=tail))
    assert (page.has_more, page.last_id) == expected


@pytest.mark.parametrize("tail", [b"", b',"has_more":false', b',"has_more":false,"last_id":null'])
def test_an_empty_page_has_no_cursor(tail: bytes) -> None:
    """Without has_more it is the end."""
    assert parse_page(body(tail=tail)) == Page((), has_more=False, last_id=None)


def test_an_empty_page_may_say_that_more_follows() -> None:
    """What that means is for the pager."""
    assert parse_page(body(tail=b',"has_more":true')) == Page((), has_more=True, last_id=None)


def test_a_null_list_that_ends_the_list_is_an_empty_page() -> None:
    """As some servers write an empty list."""
    assert parse_page(b'{"data":null,"has_more":false,"last_id":null}') == Page((), has_more=False, last_id=None)


@pytest.mark.parametrize(
    "text",
    [
        b'{"data":null}',
        b'{"data":null,"has_more":true}',
        b'{"data":null,"has_more":false,"last_id":"z"}',
        b'{"object":"list","has_more":false}',
        b"{}",
        b'{"data":{},"has_more":false}',
        b'{"data":"[]","has_more":false}',
        b'{"error":{"message":"no"}}',
        b'{"data":[],"has_more":"true"}',
        b'{"data":[],"has_more":1}',
        b'{"data":[{"type":"x"}],"has_more":true}',
        b'{"data":[{"id":7}],"has_more":true}',
        b'{"data":[{"id":"\\ud800"}],"has_more":true}',
        b'{"data":["e"],"has_more":true}',
        b"[]",
        b"<html></html>",
        b"\xff\xfe{",
        b"null",
        b'"data"',
    ],
)
def test_a_whole_body_that_is_no_page_breaks_the_contract(text: bytes) -> None:
    """Never taken for an empty page: that would be the end of the window."""
    with pytest.raises(ApiProtocolError, match="expected"):
        parse_page(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" \n",
        b"\xef\xbb\xbf",
        b'{"data":[]} x',
        b'{"data":[]} []',
        b'{"data":[]}}',
        b'{"data":[}]}',
        b'{"data":[1 2]}',
        b'{"data":[1,]}',
        b'{"data":[,1]}',
        b'{"data":[1],7:1}',
        b'{"data":[{"id":"\\ud800","x":"}]}',
        b'{"data"[]}',
        b"{data:[]}",
        b'{"data":[],}',
        b'{"data":[] "x":1}',
        b'{"data":}',
        b'{"data":["x]}',
        b'{"x":1,"data":["\\ud800"',
    ],
)
def test_a_body_that_is_not_whole_json_may_be_asked_for_again(text: bytes) -> None:
    """Cut or garbled on the way: nothing is guessed."""
    with pytest.raises(IncompleteJSONError):
        parse_page(text)


@pytest.mark.parametrize("spaces", [b"", b" "])
@pytest.mark.parametrize("event", [b'{"id":"a"}', POISON["lone surrogate"]], ids=["strict", "slow"])
def test_a_list_object_in_an_archive_gives_its_events(event: bytes, spaces: bytes) -> None:
    """As the API sent it, or printed with spaces."""
    assert envelope_events(b'{"object":' + spaces + b'"list","data":[' + event + b"]}") == (event,)


@pytest.mark.parametrize(
    "document",
    [
        b'{"id":"a","type":"list"}',
        b'{"object":"other","kind":"list","data":[1]}',
        b'{"object":"list","data":null}',
        b'{"object":"list"}',
        b'{"object":"list","data":[1',
        b'["list"]',
        b"",
    ],
)
def test_anything_else_is_no_list_object(document: bytes) -> None:
    """It stays an event of its own."""
    assert envelope_events(document) is None


def pages(pager: Pager, *answers: Page) -> list[str | None]:
    """Feed the pager; the cursors it asked with."""
    asked = []
    for answer in answers:
        asked.append(pager.after)
        pager.receive(answer)
    return asked


def page(event: str, cursor: str | None, *, more: bool = True) -> Page:
    return Page((event.encode(),) if event else (), more, cursor)


def test_the_pager_follows_cursors_to_the_end() -> None:
    """First without a cursor, then with each page's last_id, until has_more is false."""
    pager = Pager()
    assert pages(pager, page("1", "a"), page("2", "b"), page("3", "c", more=False)) == [None, "a", "b"]
    assert (pager.done, pager.pages) == (True, 3)


def test_an_empty_window_is_one_page() -> None:
    """Nothing there is an answer too."""
    pager = Pager()
    pager.receive(page("", None, more=False))
    assert (pager.done, pager.pages, pager.after) == (True, 1, None)


@pytest.mark.parametrize("cursors", [("a", "a"), ("a", "b", "a"), ("a", "b", "b")])
def test_a_repeated_cursor_is_an_error(cursors: tuple[str, ...]) -> None:
    """At once or in a circle."""
    pager = Pager()
    answers = [page(str(number), cursor) for number, cursor in enumerate(cursors)]
    pages(pager, *answers[:-1])
    with pytest.raises(ApiProtocolError, match="came twice"):
        pager.receive(answers[-1])
    assert not pager.done


@pytest.mark.parametrize("more", [True, False])
def test_the_same_page_again_under_a_new_cursor_is_an_error(*, more: bool) -> None:
    """A server that ignores `after` would be read for ever, or taken for the end."""
    pager = Pager()
    pager.receive(page("1", "a"))
    with pytest.raises(ApiProtocolError, match="same events"):
        pager.receive(page("1", "b", more=more))


def test_a_page_with_events_and_no_cursor_is_an_error() -> None:
    """There would be no next page to ask for."""
    with pytest.raises(ApiProtocolError, match="no cursor"):
        Pager().receive(page("1", None))


@pytest.mark.parametrize("cursor", [None, "a"])
def test_an_empty_page_that_promises_more_is_asked_for_again(cursor: str | None) -> None:
    """With no cursor or the same: three times the same request, then an error."""
    pager = Pager()
    pager.receive(page("1", "a"))
    empty = page("", cursor)
    assert pages(pager, empty, empty, empty) == ["a", "a", "a"]
    with pytest.raises(ApiProtocolError, match="stayed empty 4 times"):
        pager.receive(empty)
    assert (pager.after, pager.done) == ("a", False)


def test_an_empty_page_that_fills_on_the_second_try_costs_nothing() -> None:
    """The count begins anew after a page with events."""
    pager = Pager()
    empty = page("", None)
    asked = pages(pager, empty, empty, empty, page("1", "a"), empty, empty, empty, page("2", "b", more=False))
    assert asked == [None, None, None, None, "a", "a", "a", "a"]
    assert pager.done


def test_an_empty_page_with_a_new_cursor_is_followed_but_not_for_ever() -> None:
    """A server may scan and find nothing; a hundred times in a row is enough."""
    pager = Pager()
    empties = [page("", f"c{number}") for number in range(Pager.MAX_EMPTY)]
    assert pages(pager, *empties) == [None, *(f"c{number}" for number in range(Pager.MAX_EMPTY - 1))]
    with pytest.raises(ApiProtocolError, match="101 empty pages"):
        pager.receive(page("", "new"))


def test_a_new_cursor_begins_the_count_of_repeats_anew() -> None:
    """Each request may be repeated three times."""
    pager = Pager()
    same, new = page("", None), page("", "b")
    assert pages(pager, same, same, same, new, same, same, same) == [None, None, None, None, "b", "b", "b"]
    with pytest.raises(ApiProtocolError, match="stayed empty 4 times"):
        pager.receive(same)


def test_an_empty_page_with_an_old_cursor_is_an_error() -> None:
    """It leads back."""
    pager = Pager()
    pages(pager, page("1", "a"), page("2", "b"))
    with pytest.raises(ApiProtocolError, match="came twice"):
        pager.receive(page("", "a"))


@pytest.mark.parametrize("seed", range(50))
def test_the_pager_ends_against_any_server_with_finitely_many_cursors(seed: int) -> None:
    """Random answers out of ten cursors: done or an error after a bounded number of pages."""
    chance = random.Random(seed)
    pager = Pager()
    for _ in range(500):
        try:
            pager.receive(
                page(
                    chance.choice(["", str(chance.random())]),
                    chance.choice([None, *"0123456789"]),
                    more=chance.random() < 0.98,
                )
            )
        except ApiProtocolError:
            return
        if pager.done:
            return
    pytest.fail("the pager did not come to an end")


def test_the_strict_parser_takes_an_ordinary_page_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow path is for pages that need it."""
    monkeypatch.setattr(paging, "scan", None)
    assert len(parse_page(body(*PLAIN.values())).events) == len(PLAIN)


def _value(chance: random.Random, depth: int) -> Any:
    kinds = ["text", "number", "word"] + (["object", "array"] if depth else [])
    match chance.choice(kinds):
        case "text":
            return "".join(chance.choices('abc"\\/[]{}:,\n\t é😀\u0000', k=chance.randrange(8)))
        case "number":
            return chance.choice([0, -1, 3.5, 10**30, 1e-7])
        case "word":
            return chance.choice([True, False, None])
        case "object":
            return {repr(_value(chance, 0)): _value(chance, depth - 1) for _ in range(chance.randrange(4))}
        case _:
            return [_value(chance, depth - 1) for _ in range(chance.randrange(4))]


def _encode(chance: random.Random, value: Any) -> bytes:
    return json.dumps(
        value,
        ensure_ascii=chance.random() < 0.5,
        indent=chance.choice([None, None, 1]),
        separators=chance.choice([(",", ":"), (" , ", " : ")]),
    ).encode()


def test_the_moments_of_a_page_are_those_of_its_first_and_last_event() -> None:
    """A guess from two events: none of it when one of them does not say its moment plainly."""
    first, middle, last = (b'{"id":"%d", "effective_at": %d}' % (number, 100 - number) for number in range(3))
    assert moments(Page((first, middle, last))) == (100, 98)
    assert moments(Page((first,))) == (100, 100)
    assert moments(Page(())) == ()
    assert moments(Page((first, b"not JSON", last))) == (100, 98)
    odd = [b'{"id":"x"}', b'{"effective_at":null}', b'{"effective_at":1.5}', b"null", *POISON.values()]
    assert [moments(Page((first, one))) for one in odd] == [()] * len(odd)
