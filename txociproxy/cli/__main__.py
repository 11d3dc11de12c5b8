"""``python -m txociproxy.cli``: the same as ``ociproxy``, where no scripts were installed."""

from txociproxy.cli.main import main

raise SystemExit(main())
