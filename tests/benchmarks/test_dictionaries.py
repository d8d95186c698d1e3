"""Parsers of the instruction pairs, on a few lines of each format."""

from benchmarks.quality.dictionaries import (
    chat_pairs,
    dictd_entries,
    foldoc_pairs,
    freedict_pairs,
    satire_pairs,
    wordnet_pairs,
)

WORDNET = """\
  1 This software and database is being provided to you, the LICENSEE
00001740 29 v 01 inhale 0 000 | draw in (air); "Inhale deeply"; "inhale the air"
02084071 05 n 02 dog 0 domestic_dog 1 002 @ 02083346 n 0000 ~ 01322604 n 0000 | a pet
02083346 05 n 01 canine 0 000 | a mammal with long muzzles; also wild
00001741 00 s 01 big(a) 0 000 | "a big house"
"""


def test_wordnet_lines_give_definitions_uses_synonyms_and_kinds() -> None:
    pairs = wordnet_pairs(WORDNET.splitlines())
    assert pairs == {
        "define": [
            ("define verb inhale", "draw in (air)"),
            ("define noun dog", "a pet"),
            ("define noun canine", "a mammal with long muzzles; also wild"),
        ],
        "usage": [
            ("use verb inhale", "Inhale deeply"),
            ("use adjective big", "a big house"),
        ],
        "synonym": [("synonym of dog", "domestic dog")],
        "category": [("what kind of thing is dog", "canine")],
    }


def test_dictd_offsets_are_digits_of_base_64() -> None:
    text = b"x" * 65 + b"abc" + "é".encode()
    index = "00-database-info\tA\tB\nword\tBB\tD\nother\tBE\tC\n"
    assert list(dictd_entries(index, text)) == [("word", "abc"), ("other", "é")]


def test_a_dictionary_entry_is_cut_at_the_end_of_a_sentence_that_fits() -> None:
    entry = (
        "ABEND\n\n   <abuse> {Abnormal} end.  Seen\n   often. And so on.\n\n   More.\n"
    )
    pairs = foldoc_pairs([("abend", entry)], "computing:", 30)
    assert list(pairs) == [("computing: ABEND", "Abnormal end. Seen often.")]


def test_an_entry_whose_first_sentence_is_too_long_is_left_out() -> None:
    assert not list(foldoc_pairs([("x", "x\n\n   Much too long.\n")], "is:", 8))


def test_how_a_word_is_said_is_no_part_of_what_it_is() -> None:
    entry = "@-party\n /at'par`tee/, n.\n\n    A gathering.\n"
    assert list(foldoc_pairs([("party", entry)], "jargon:", 80)) == [
        ("jargon: @-party", "A gathering.")
    ]


def test_satire_starts_after_the_part_of_speech() -> None:
    entry = "ABILITY, n.  The natural equipment.\n\n    A verse.\n"
    assert list(satire_pairs([("ability", entry)], "satire:", 80)) == [
        ("satire: ability", "The natural equipment.")
    ]


def test_the_first_translation_is_taken() -> None:
    entries = [
        ("abc", "ABC /eibi/\n1. abc, alphabet\n2. else\n"),
        ("aids", "AIDS /eidz/\nsida\n"),
        ("none", "none\n"),
    ]
    assert list(freedict_pairs(entries, "in French:")) == [
        ("in French: abc", "abc"),
        ("in French: aids", "sida"),
    ]


def test_each_turn_of_a_dialogue_answers_the_one_before() -> None:
    text = """\
categories:
- greetings
conversations:
- - Hello
  - 'It''s you:
    again.'
  - Yes
- - code?
  - |
    print()
"""
    assert list(chat_pairs({"a": text})) == [
        ("Hello", "It's you: again."),
        ("It's you: again.", "Yes"),
    ]
