"""From token ids to text that may be shown, and the rules that end it.

In:  tokens one by one.  Out: pieces of text whose concatenation is the completion's text, and the finish.

Unusual: where a text ends does not depend on how tokens cut it. Of several stop strings the one that is complete
first wins; a text never contains a stop string and never ends in half a character.
"""

from codeweft.engine.request import Finish, Request
from codeweft.tokenizer.load import Tokenizer

HALF = "\ufffd"  # how a decoder writes bytes that are not, or not yet, a character


class Characters:
    """Decodes byte-level tokens as they come; holds back the bytes of an incomplete last character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.open: list[int] = []  # tokens since the last moment without an incomplete character
        self.given = 0  # characters of `open` already handed out

    def push(self, token: int) -> str:
        """The characters that `token` completes.

        A valid beginning of a character decodes to exactly one replacement mark at the end, so all before it is final.
        """
        self.open.append(token)
        text = self.tokenizer.decode(self.open)
        if not text.endswith(HALF):
            fresh = text[self.given :]
            self.open, self.given = [], 0
            return fresh
        fresh = text[self.given : -1]
        self.given = len(text) - 1
        return fresh

    def end(self) -> str:
        """What is still held back, as the replacement marks a decoder gives; asked when the model itself ended."""
        return self.tokenizer.decode(self.open)[self.given :] if self.open else ""


class Text:
    """The text of one request: applies end token, stop strings, line rule and length, in this order."""

    def __init__(self, tokenizer: Tokenizer, request: Request) -> None:
        self.request = request
        self.end_token = tokenizer.end
        self.characters = Characters(tokenizer)
        self.held = ""  # may be the beginning of a stop string
        self.has_text = False  # something other than white space was given out
        self.count = 0

    def push(self, token: int) -> tuple[str, Finish | None]:
        """The text that may be shown after `token`, and the finish if this was the last one."""
        self.count += 1
        ended = token == self.end_token
        self.held += self.characters.end() if ended else self.characters.push(token)
        cut = self._first_stop()
        if cut is not None:
            return self._give(cut), "stop"
        if ended:
            return self._give(len(self.held)), "stop"
        if self.count >= self.request.max_tokens:
            return self._give(len(self.held)), "length"
        return self._give(len(self.held) - self._open_stop()), None

    def _give(self, length: int) -> str:
        text, self.held = self.held[:length], self.held[length:]
        self.has_text = self.has_text or bool(text.strip())
        return text

    def _first_stop(self) -> int | None:
        """Where to cut `held`: the start of the match that is complete first, the longest of equals."""
        found = []
        for stop in self.request.stop:
            start = self.held.find(stop)
            if start >= 0:
                found.append((start + len(stop), start))
        if self.request.stop_line:
            start = self._line_end()
            if start is not None:
                found.append((start + 1, start))
        return min(found)[1] if found else None

    def _line_end(self) -> int | None:
        has_text = self.has_text
        for index, character in enumerate(self.held):
            if character in "\r\n" and has_text:
                return index
            has_text = has_text or not character.isspace()
        return None

    def _open_stop(self) -> int:
        """The length of the longest end of `held` that begins a stop string."""
        longest = max((len(stop) for stop in self.request.stop), default=1) - 1
        for length in range(min(longest, len(self.held)), 0, -1):
            if any(stop.startswith(self.held[-length:]) for stop in self.request.stop):
                return length
        return 0
