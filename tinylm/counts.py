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


def times(fewest: float, most: float) -> str:
    """How often something is done, about: once, 40 times, 0.35 to 2.5 times."""
    few, many = (
        f"{number:,.0f}" if number >= 9.5 else f"{number:.2g}" for number in (fewest, most)
    )
    return f"{few} to {many} times" if few != many else "once" if few == "1" else f"{few} times"
