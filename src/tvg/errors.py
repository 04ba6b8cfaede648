"""The one error that users see: where it happened, what is wrong, what was got, what was expected, what to do."""


class TvgError(Exception):
    """A problem that the user can mend.

    >>> print(TvgError("a.yaml", "unknown key", got="stpes", expected="one of steps, seed", hint="see README"))
    a.yaml: unknown key
      got:      stpes
      expected: one of steps, seed
      hint:     see README
    """

    def __init__(self, where: object, what: str, *, got: object, expected: object, hint: str):
        self.where, self.what, self.got, self.expected, self.hint = str(where), what, got, expected, hint
        super().__init__(f"{where}: {what}\n  got:      {got}\n  expected: {expected}\n  hint:     {hint}")

    def __reduce__(self):
        """So that one raised in a worker process arrives whole."""
        return _again, (self.where, self.what, self.got, self.expected, self.hint)


def _again(where: str, what: str, got: object, expected: object, hint: str) -> TvgError:
    return TvgError(where, what, got=got, expected=expected, hint=hint)
