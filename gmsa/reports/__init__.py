"""Tables of results in Markdown, LaTeX and CSV. Everything here takes plain results."""
