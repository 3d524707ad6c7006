"""A hosted demo of unleak: the page of `unleak ui` with nano, for a host that runs app.py on port 7860."""

import os
from threading import Event

from unleak.ui.serve import serving

if __name__ == "__main__":
    named = os.environ.get("SPACE_HOST")  # the address that a Hugging Face Space is reached by
    with serving(["nano"], host="0.0.0.0", port=7860, hosts=[named] if named else ()) as address:
        print(address, flush=True)
        Event().wait()
