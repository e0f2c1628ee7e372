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


class Layout:
    """Ends a text by its lines, indentation and brackets, character by character.

    Brackets inside quotes do not count; a quote ends with its line.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.count = 0  # characters read
        self.has_text = False
        self.line_end = 0  # where the last line that holds something ends
        self.column: int | None = None  # white space so far in a later line of which nothing else is known
        self.depth = 0  # brackets opened and not closed
        self.quote, self.escaped = "", False

    @property
    def safe(self) -> int:
        """The characters that stay whatever comes: a line is held back until its indentation is known."""
        return self.count if self.column is None or self.request.stop_indent is None else self.line_end

    def push(self, character: str) -> int | None:
        """Where to cut the text because of this character, if it is."""
        place, breaks = self.count, character in "\r\n"
        self.count += 1
        if breaks and self.request.stop_line and self.has_text:
            return place
        self.has_text = self.has_text or not character.isspace()
        if self.request.stop_bracket and self._closes_too_much(character, breaks):
            return place
        return self._unindents(character, breaks) if self.request.stop_indent is not None else None

    def _unindents(self, character: str, breaks: bool) -> int | None:
        if breaks:
            if self.column is None:
                self.line_end = self.count - 1
            self.column = 0
        elif self.column is not None and character.isspace():
            self.column += 1
        elif self.column is not None:
            if self.column < (self.request.stop_indent or 0):
                return self.line_end
            self.column = None
        return None

    def _closes_too_much(self, character: str, breaks: bool) -> bool:
        if self.quote:
            if breaks or (character == self.quote and not self.escaped):
                self.quote = ""
            self.escaped = character == "\\" and not self.escaped
        elif character in "'\"":
            self.quote, self.escaped = character, False
        elif character in "([{":
            self.depth += 1
        elif character in ")]}":
            self.depth -= 1
        return self.depth < 0


class Text:
    """The text of one request: applies end and stop tokens, stop strings, layout and length, in this order."""

    def __init__(self, tokenizer: Tokenizer, request: Request) -> None:
        self.request = request
        self.ends = {tokenizer.end, *request.stop_tokens}
        self.characters = Characters(tokenizer)
        self.layout = Layout(request)
        self.held = ""  # may be the beginning of a stop string, or of a line that is not wanted
        self.given = 0  # characters handed out
        self.count = 0

    def push(self, token: int) -> tuple[str, Finish | None]:
        """The text that may be shown after `token`, and the finish if this was the last one."""
        self.count += 1
        ended = token in self.ends
        fresh = self.characters.end() if ended else self.characters.push(token)
        self.held += fresh
        cut = self._first_stop(len(self.held) - len(fresh))
        if cut is not None:
            return self._give(cut), "stop"
        if ended:
            return self.rest(), "stop"
        if self.count >= self.request.max_tokens:
            return self.rest(), "length"
        return self._give(min(len(self.held) - self._open_stop(), self.layout.safe - self.given)), None

    def rest(self) -> str:
        """What was held back, where nothing more comes."""
        return self._give(len(self.held))

    def _give(self, length: int) -> str:
        text, self.held = self.held[:length], self.held[length:]
        self.given += length
        return text

    def _first_stop(self, known: int) -> int | None:
        """Where to cut `held`: the start of the match that is complete first, the longest of equals.

        known: characters of `held` that the layout has read before.
        """
        found = []
        for stop in self.request.stop:
            start = self.held.find(stop)
            if start >= 0:
                found.append((start + len(stop), start))
        for place in range(known, len(self.held)):
            cut = self.layout.push(self.held[place])
            if cut is not None:
                found.append((place + 1, cut - self.given))
                break
        return min(found)[1] if found else None

    def _open_stop(self) -> int:
        """The length of the longest end of `held` that begins a stop string."""
        longest = max((len(stop) for stop in self.request.stop), default=1) - 1
        for length in range(min(longest, len(self.held)), 0, -1):
            if any(stop.startswith(self.held[-length:]) for stop in self.request.stop):
                return length
        return 0
