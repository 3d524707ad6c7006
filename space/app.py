"""A hosted demo of unleak: the page of `unleak ui` with nano, for a host that runs app.py on port 7860."""

from threading import Event

from unleak.ui.serve import serving

if __name__ == "__main__":
    with serving(["nano"], host="0.0.0.0", port=7860) as address:
        print(address, flush=True)
        Event().wait()
