"""The README tells what the tests show."""
from tests.faults.table import BEGIN, END, README, rows, table


def test_the_readme_has_a_row_for_every_tested_fault():
    told = README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert told.strip() == table().strip()
    assert len(list(rows())) > 15
