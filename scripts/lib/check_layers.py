"""Fails on an include that the ladder does not allow.

Each src/<folder>/CMakeLists.txt lists what the folder may include (narrow_layer(... DEPS ...)); every listed folder must
stand lower on the ladder of the top CMakeLists.txt. Public headers (include/narrow) may be used by pipeline/, recipe/, api/ and
cli/; result.h and progress.h, which carry no meaning of their own, by everyone. cli/ sees nothing but public headers.
"""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parents[2]
ladder = re.search(r"foreach\(layer ([^)]*)\)", (root / "CMakeLists.txt").read_text()).group(1).split()
problems, arrows, files = [], 0, 0
allowed = {}
for layer in ladder:
    text = (root / "src" / layer / "CMakeLists.txt").read_text()
    m = re.search(r"narrow_layer\((\w+)([^)]*)\)", text)
    deps = []
    if m:
        d = re.search(r"DEPS ([^)]*?)(?: LINK|$)", m.group(2).strip().replace("\n", " "))
        deps = d.group(1).split() if d else []
    for dep in deps:
        if ladder.index(dep) >= ladder.index(layer):
            problems.append(f"src/{layer}/CMakeLists.txt: {layer} lists {dep}, which stands higher on the ladder")
    allowed[layer] = set(deps) | {layer}
for path in sorted((root / "src").rglob("*")):
    if path.suffix not in (".h", ".cc"):
        continue
    files += 1
    layer = path.relative_to(root / "src").parts[0]
    for n, line in enumerate(path.read_text().splitlines(), 1):
        m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not m:
            continue
        arrows += 1
        top, where = m.group(1).split("/")[0], f"{path.relative_to(root)}:{n}"
        if top == "narrow":
            if m.group(1) not in ("narrow/result.h", "narrow/progress.h") and layer not in ("pipeline", "recipe", "api", "cli"):
                problems.append(f"{where}: {layer} includes the public header {m.group(1)}")
        elif layer == "cli" and top != "cli":
            problems.append(f"{where}: cli may use include/narrow only, not {m.group(1)}")
        elif top not in allowed[layer]:
            problems.append(f"{where}: {layer} may not include {m.group(1)} (allowed: {' '.join(sorted(allowed[layer]))})")
for path in sorted((root / "include").rglob("*.h")):
    for n, line in enumerate(path.read_text().splitlines(), 1):
        m = re.match(r'\s*#\s*include\s+([<"])([^>"]+)', line)
        if m and (m.group(1) == '"' and not m.group(2).startswith("narrow/") or m.group(1) == "<" and "/" in m.group(2)):
            problems.append(f"{path.relative_to(root)}:{n}: a public header includes {m.group(2)}")
print("\n".join(problems) if problems else f"layers: {files} files, {arrows} includes, all point down")
sys.exit(1 if problems else 0)
