"""Rows together: each with adapters of its own, with what it gets alone."""
import pytest

import libpeft
from conftest import PROMPT, shake


@pytest.fixture
def set_of_two(adapters):
    shake(adapters["a"])
    shake(adapters.add("b", r=2))
    return adapters


def test_rows_get_what_they_get_alone(set_of_two):
    session = libpeft.Session(set_of_two, "a")
    wanted = [([1, 2, 3], None, "a"), ([4, 5], "b", "b"), ([6], "", ""), ([7, 8, 9, 10], set_of_two["b"], "b"), ([1, 2], "0.5 * a", "0.5 * a")]
    added = [session.add_row(ids, e, max_new_tokens=4 + i, ignore_eos=True) for i, (ids, e, _) in enumerate(wanted)]
    seen = list(session.rows())
    assert [token.row.number for token in seen[:5]] == [row.number for row in added]
    assert sum(token.ended for token in seen) == 5 and list(session.rows()) == [] and session.next_tokens() == []
    for i, (ids, _, e) in enumerate(wanted):
        alone = libpeft.Session(set_of_two, e).generate(ids, max_new_tokens=4 + i, ignore_eos=True)
        assert added[i].ids == alone and added[i].ended and added[i].error is None
        assert [token.id for token in seen if token.row is added[i]] == alone


def test_texts_join_and_leave(demo):
    session = libpeft.Session(demo)
    alone = [libpeft.Session(demo).generate(PROMPT[:n], max_new_tokens=12) for n in (5, 9, 14)]
    first = session.add_row(PROMPT[:5], max_new_tokens=12)
    session.next_tokens()
    gone, second = session.add_row(PROMPT, max_new_tokens=12), session.add_row(PROMPT[:9], max_new_tokens=12)
    session.next_tokens()
    gone.remove()
    gone.remove()
    assert gone.ended and "Row 2" in repr(gone)
    third = session.add_row(PROMPT[:14], max_new_tokens=12)
    for _ in session.rows():
        pass
    assert [first.text, second.text, third.text] == alone
    assert session.generate_together([PROMPT[:5], (PROMPT[:9], ""), (PROMPT[:14], None)], max_new_tokens=12) == alone


def test_more_than_a_session_has_wait(demo):
    session = libpeft.Session(demo, chunk=3)
    with pytest.raises(libpeft.BusyError, match="3 rows"):
        for _ in range(4):
            session.add_row("name:")
    assert len([token for token in session.rows() if token.ended]) == 3
    prompts = [PROMPT[:5 + i] for i in range(8)]
    assert session.generate_together(prompts, max_new_tokens=3) == [session.generate(p, max_new_tokens=3) for p in prompts]


def test_held_rows_are_read_once(set_of_two):
    session = libpeft.Session(set_of_two, "a")
    held = session.add_row(list(range(1, 21)), max_new_tokens=0, hold=True)
    assert [(t.row, t.id, t.ended) for t in session.rows()] == [(held, None, True)]
    row = session.add_row(list(range(1, 21)) + [5], max_new_tokens=3, ignore_eos=True)
    list(session.rows())
    assert row.ids == libpeft.Session(set_of_two, "a").generate(list(range(1, 21)) + [5], max_new_tokens=3, ignore_eos=True)
    with pytest.raises(libpeft.BusyError, match='"a" is in use'):
        set_of_two.remove("a")
    held.remove()


def test_an_adapter_is_replaced_meanwhile(set_of_two, tmp_path):
    set_of_two["b"].save(tmp_path / "b")
    session = libpeft.Session(set_of_two, "")
    before = session.add_row([1, 2, 3], "a", max_new_tokens=5, ignore_eos=True)
    alone = libpeft.Session(set_of_two, "a").generate([1, 2, 3], max_new_tokens=5, ignore_eos=True)
    session.next_tokens()
    with pytest.raises(libpeft.ExistsError):
        set_of_two.load("a", tmp_path / "b")
    set_of_two.load("a", tmp_path / "b", replace=True)
    after = session.add_row([1, 2, 3], "a", max_new_tokens=5, ignore_eos=True)
    list(session.rows())
    assert before.ids == alone
    assert after.ids == libpeft.Session(set_of_two, "b").generate([1, 2, 3], max_new_tokens=5, ignore_eos=True)


def test_refused(set_of_two):
    session = libpeft.Session(set_of_two, "a")
    with pytest.raises(libpeft.NotFoundError, match='"z"'):
        session.add_row([1], "z")
    with pytest.raises(libpeft.UnsupportedError, match="one row is added"):
        session.add_row([1], "batch_split(a:1,b:1)")
    with pytest.raises(libpeft.UnsupportedError, match="num_beams"):
        session.add_row([1], num_beams=2)
    with pytest.raises(libpeft.InvalidError):
        session.add_row([])
    assert session.next_tokens() == []
