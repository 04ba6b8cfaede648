import sys

from tvg.cli import main

sys.exit(main())
