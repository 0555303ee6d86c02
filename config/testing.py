"""A pytest plugin, loaded before Django: every test process works in a folder of its own, with one torch thread."""

import atexit
import os
import shutil
import tempfile

HOME = tempfile.mkdtemp(prefix="prefloop-test-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

os.environ["PREFLOOP_HOME"] = HOME
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
