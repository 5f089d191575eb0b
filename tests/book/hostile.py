"""Answers that attack the grader: body of question 8.5 → what its feedback must say. MARK
names processes left running.
"""

import os

# test runs side by side must not see each other's
MARK = f"left-behind-by-an-answer-of-{os.getpid()}"
SECRET = "SECRET-OF-ANOTHER-STUDENT"

HOSTILE = {
    "loop": ("while True:\n    pass", "endless loop"),
    "hog": ("x = []\nwhile True:\n    x.append(bytearray(1 << 29))", "MemoryError"),
    "segfault": ("import ctypes\nctypes.string_at(0)", "crashed (SIGSEGV)"),
    "abort": ("import os\nos.abort()", "crashed"),
    "recursion": ("return slope_and_curvature(lam, f)", "RecursionError"),
    "exit": ("print('Q08.5 PASS')\nraise SystemExit(0)", "SystemExit"),
    "hard_exit": (
        "import os\nos.write(1, b'Q08.5 PASS\\n')\nos._exit(0)",
        "without returning anything",
    ),
    "print_pass": ("print('Q08.5 PASS')\nreturn None", "returned None"),
    "returns_pass": ("return 'PASS', 'PASS'", "ValueError"),
    "returns_none": ("pass", "returned None"),
    "returns_nan": ("return f[0] * math.nan, f[0]", "not finite"),
    "returns_shapes": ("return f, f", "has shape (3, 8), wanted (8,)"),
    "returns_much": ("return torch.zeros(10**6), f[0]", "a message of"),
    "asserts_true": (
        "class Same(float):\n    __eq__ = __lt__ = lambda *a: True\nreturn Same(1), Same(1)",
        "has shape ()",
    ),
    "left_running": (
        "import os\nif os.fork() == 0:\n    os.setpgrp()\n    os.execv('/bin/sleep', "
        f"['{MARK}', '300'])\nreturn f[0], f[0]",
        "slope",
    ),
    "daemon": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n       "
        f" os.execv('/bin/sleep', ['{MARK}', '300'])\n"
        "    os._exit(0)\ntime.sleep(0.2)\nos._exit(0)",
        "without returning anything",
    ),
    "fork_bomb": ("import os\nwhile True:\n    os.fork()", ""),
    "kill_all": (
        "import os\nfor who in (0, -1, os.getppid()):\n    os.kill(who, 9) if who != "
        "os.getpid() else None\nreturn f[0], f[0]",
        "",
    ),
    "network": ("import socket\nsocket.create_connection(('192.0.2.1', 80), 2)", "unreachable"),
    "localhost": ("import socket\nsocket.create_connection(('127.0.0.1', PORT), 2)", "OSError"),
    "reads_others": ("raise ValueError(open(OTHER).read())", "FileNotFoundError"),
    "lists_others": ("import os\nraise ValueError(os.listdir(FOLDER))", "FileNotFoundError"),
    "reads_proc": ("raise ValueError(open('/proc/1/environ').read())", "FileNotFoundError"),
    "writes_library": ("import dlib\nopen(dlib.__file__, 'a').write('x')", "[Errno"),
    "fills_disk": (
        "import os\nfor i in range(9):\n    open(f'{i}', 'wb').write(bytes(1 << 24))",
        "No space left",
    ),
    "frames": (
        "import sys\nframe, found = sys._getframe(), []\nwhile frame:\n    found += [n for n "
        "in frame.f_locals if n in ('truth', 'case', 'exam', 'seed')]\n"
        "    frame = frame.f_back\nassert not found, 'SAW THE TRUTH'\nraise ValueError('no "
        "truth in any frame')",
        "no truth in any frame",
    ),
    "memory_search": (
        "import gc\nheld = [o for o in gc.get_objects() if type(o).__name__ == 'Case']\n"
        "raise ValueError(f'{len(held)} cases')",
        "0 cases",
    ),
    "redraws": (
        "from book.truth import question\nreturn question('Q08.5').draw(0).values",
        "No module named 'book.truth'",
    ),
    "patches_judge": (
        "from book import truth\ntruth.judging.exactly = lambda *_: truth.judging.RIGHT\n"
        "return f[0], f[0]",
        "cannot import name 'truth'",
    ),
    "forges_frames": (
        "import gc\nc = next(o for o in gc.get_objects() if type(o).__name__ == 'Channel')\n"
        "c.send(b'A', b'\\xff' * 100)\nreturn f[0], f[0]",
        "not an answer",
    ),
    "forges_verdict": (
        "import os, struct\nos.write(3, struct.pack('<cI', b'P', 10) + b'Q08.5 PASS')\n"
        "return f[0], f[0]",
        "not an answer",
    ),
    "blames_the_machine": (
        "import os, struct\nos.write(3, struct.pack('<cI', b'X', 9) + b'no memory')\n"
        "return f[0], f[0]",
        "not an answer",
    ),
    "says_not_graded": (
        "raise NotImplementedError('not graded: the sandbox could not be started')",
        "not graded: the sandbox",
    ),
    "spells_the_library": (
        "from importlib import import_module as get\nnewton = get('dl' + 'ib.solvers')\n"
        "return f[0], f[0]",
        "slope",
    ),
    "formula": ("raise ValueError('=HYPERLINK(\"http://192.0.2.1\")\\n@SUM(1)')", "ValueError"),
    "syntax": ("return (", "SyntaxError"),
    "magic": ("%timeit 1", "Q08.5: the answer's cell has a line that starts with % or !"),
    "helper_elsewhere": ("return helper(lam, f)", "move what it needs into its cell"),
    "calls_network": (
        "import os, struct\nos.write(3, struct.pack('<cI', b'C', 0))\nreturn model(f, lam)",
        "not an answer",
    ),
    "no_such_name": ("return f[0], f[0]", "slope_and_curvature(…): keep the name"),
}
