"""The status page in the browser: what the observer answers for it (`site`), and the page itself, beside this file."""
