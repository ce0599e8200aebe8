"""Equations of the registries, which are lines of ASCII, as HTML: Greek letters, arrows, indices and powers."""

from __future__ import annotations

import html
import re

_GREEK = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "epsilon": "ε",
    "eps": "ε",
    "eta": "η",
    "theta": "θ",
    "mu": "μ",
    "nu": "ν",
    "xi": "ξ",
    "pi": "π",
    "rho": "ρ",
    "sigma": "σ",
    "tau": "τ",
    "phi": "φ",
}
_WORDS = {**_GREEK, "lambda": "λ", "sum": "∑", "sqrt": "√", "grad": "∇", "prod": "∏"}
_SIGNS = (("<-", " ← "), ("<=", " ≤ "), (">=", " ≥ "), ("!=", " ≠ "), (" * ", " · "), (" - ", " − "))
_CLOSING = {"(": ")", "{": "}", "[": "]"}
_ATOM = re.compile(r"-?[A-Za-z0-9*]+")
_WORD = re.compile(r"[A-Za-z]+")


def rendered(equation: str) -> str:
    """HTML of an equation; what stands after a semicolon gets a line of its own."""
    lines = [line for part in re.split(r";\s+", equation) if (line := _line(part))]
    return f'<div class="equation">{"<br>".join(lines)}</div>' if lines else ""


def _line(text: str) -> str:
    for ascii_sign, sign in _SIGNS:
        text = text.replace(ascii_sign, sign)
    return _formula(" ".join(text.split()))


def _formula(text: str) -> str:
    found, at, base = [], 0, ""
    while at < len(text):
        if text[at] in "_^" and at + 1 < len(text) and (group := _group(text, at + 1)):
            inner, end = group
            if text[at] == "^" or _is_index(base, inner):
                tag = "sup" if text[at] == "^" else "sub"
                found.append(f"<{tag}>{_formula(inner)}</{tag}>")
                at = end
                continue
        if word := _WORD.match(text, at):
            base, at = word[0], word.end()
            is_text = text.startswith(" of ", at)  # "the sum of"
            found.append(base if is_text else _WORDS.get(base, base))
            continue
        base = "" if text[at] == " " else text[at]
        found.append(html.escape(text[at], quote=False))
        at += 1
    return "".join(found)


def _group(text: str, at: int) -> tuple[str, int] | None:
    """What an index or a power consists of, without its brackets, and where it ends."""
    if text[at] not in _CLOSING:
        atom = _ATOM.match(text, at)
        return None if atom is None else (atom[0], atom.end())
    depth = 0
    for end in range(at, len(text)):
        depth += (text[end] == text[at]) - (text[end] == _CLOSING[text[at]])
        if not depth:
            return text[at + 1 : end], end + 1
    return None


def _is_index(base: str, inner: str) -> bool:
    """Whether ``base_inner`` is a letter with an index; ``server_optimiser`` is a name."""
    return len(base) <= 2 or len(inner) <= 2 or base in _WORDS or not inner.isalpha()
