"""Counts as people read them."""


def count(number: float, unit: str = "", digits: int = 3) -> str:
    """A count in short: 786k, 6.29M; with more digits 128.6M, with a unit 30.5 GFLOP/s."""
    *prefixes, largest = ("", "k", "M", "G", "T", "P", "E")
    space = " " if unit else ""
    for prefix in prefixes:
        if abs(number) < 1000 - 0.5 * 10 ** (3 - digits):  # above, it would be rounded to 1e+03
            return f"{number:.{digits}g}{space}{prefix}{unit}"
        number /= 1000
    return f"{number:.{digits}g}{space}{largest}{unit}"
