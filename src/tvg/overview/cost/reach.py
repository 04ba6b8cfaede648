"""Whether a web address answers, in a few seconds and without fetching what is there."""

import http.client
import urllib.error
import urllib.request

SECONDS = 8.0  # of patience
NO_HEAD = 405  # what a server answers that knows the address, and wants to be asked in another way


def problem(url: str, headers: dict[str, str] | None = None, method: str = "HEAD") -> str | None:
    """Why the address gives nothing; None if it does. A proxy in the environment is used."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "tvg", **(headers or {})}, method=method)
        with urllib.request.urlopen(request, timeout=SECONDS):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return None if error.code == NO_HEAD and method == "HEAD" else f"HTTP {error.code} {error.reason}".strip()
    except ValueError:
        return "not a web address"
    except (OSError, http.client.HTTPException) as error:
        return f"cannot be reached ({getattr(error, 'reason', error)})"
