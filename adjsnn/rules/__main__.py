"""python -m adjsnn.rules: the table of all rules, as it stands in docs/rules.md."""

from adjsnn.rules import CATALOGUE
from adjsnn.rules.stated import table

if __name__ == "__main__":
    print(table(CATALOGUE))
