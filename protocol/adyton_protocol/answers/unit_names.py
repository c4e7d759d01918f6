# SPDX-License-Identifier: Apache-2.0
"""The words that the reading of units knows. To add one changes what answers mean, so it changes the measurement."""

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PREFIXES: Final = {
    "nano": "n", "micro": "\u03bc", "milli": "m", "centi": "c", "deci": "d", "kilo": "k", "mega": "M", "giga": "G",
    "tera": "T",
}  # fmt: skip
_PREFIXED: Final = {
    "meter": "m", "metre": "m", "gram": "g", "gramme": "g", "liter": "l", "litre": "l", "second": "s", "newton": "N",
    "joule": "J", "watt": "W", "volt": "V", "ampere": "A", "amp": "A", "ohm": "\u03a9", "pascal": "Pa", "hertz": "Hz",
}  # fmt: skip
NAMES: Final = {
    **_PREFIXED,
    **{prefix + name: sign + unit for prefix, sign in _PREFIXES.items() for name, unit in _PREFIXED.items()},
    "minute": "min", "hour": "h", "kelvin": "K", "mole": "mol", "radian": "rad", "degree": "\u00b0", "inch": "in",
    "foot": "ft", "yard": "yd", "mile": "mi", "ounce": "oz", "hectare": "ha", "day": "day", "week": "week",
    "month": "month", "year": "year", "decade": "decade", "century": "century", "centurie": "century",
    "pound": "pound", "ton": "ton", "tonne": "tonne", "gallon": "gallon", "quart": "quart", "pint": "pint",
    "acre": "acre", "calorie": "calorie", "kilocalorie": "kcal", "byte": "byte", "kilobyte": "kB", "megabyte": "MB",
    "gigabyte": "GB", "bit": "bit", "cent": "cent", "penny": "penny", "pennie": "penny", "pence": "penny",
    "dime": "dime", "nickel": "nickel", "dozen": "dozen", "pair": "pair",
}  # fmt: skip
"""Names of units in small letters, in the singular as a removed `s` leaves it, and the one spelling of each."""
ALIASES: Final = {
    "hr": "h", "hrs": "h", "sec": "s", "secs": "s", "mins": "min", "lbs": "lb", "feet": "ft", "inches": "in",
    "mph": "mi/h", "kph": "km/h", "mL": "ml", "L": "l", "celsius": "\u00b0C", "\u00b0c": "\u00b0C",
    "fahrenheit": "\u00b0F", "\u00b0f": "\u00b0F", "\u03c9": "\u03a9", "\u00a2": "cent",
}  # fmt: skip
"""Other spellings, taken as they are or in small letters."""
SYMBOLS: Final = _words(
    "in ft yd mi lb oz min h kcal eV keV MeV GeV Wh kWh K \u00b0 \u00b0C \u00b0F rad sr mol mmol hPa bar atm kB KB "
    "MB GB TB dB ha lx lm ppm"
) | frozenset(unit for unit in NAMES.values())
"""Units as they are written in keys. Case counts: mW is not MW."""
PREPOSITION: Final = "in"
"""Inches when it ends the answer, and else the word."""

NOT_COUNTED: Final = _words(
    "and or plus minus times over than fewer squared cubed pi half halves third thirds quarter quarters fourth fourths "
    "fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths eleventh elevenths twelfth "
    "twelfths hundredth hundredths thousandth thousandths root sqrt factorial to per by mod modulo remainder inf "
    "infinity not but if else either except without about approximately because since zero one two three four five "
    "six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty "
    "thirty forty fifty sixty seventy eighty ninety hundred hundreds thousand thousands million millions billion "
    "billions trillion trillions point negative below percent equals is are was"
)
"""Words that make more of a number than a number of things: 3 quarters are no 3, and 7 or eight is no 7."""
