"""How many there are of something, in words."""


def counted(count: int, word: str) -> str:
    """'1 frame', '2 frames': of words that take an s."""
    return f"{count} {word}{'' if count == 1 else 's'}"
