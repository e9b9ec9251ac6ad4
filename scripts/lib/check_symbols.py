"""Fails where code of one instruction set could run on a processor that lacks it.

    check_symbols.py BUILD_DIR...   a Release build each, for x86-64 or for 64-bit ARM
    check_symbols.py --self-test    proves on small leaking objects that each check can fail (needs g++)

The linker keeps one copy of every inline function and template instance that several objects define, whichever comes
first. So in the folders of src/kernels/ that are compiled for more than the baseline
  - every function that other objects can see has that folder's namespace in its name (its own or a template argument's);
  - nothing runs before main().
Everywhere else, and in the linked program outside those namespaces, there is no instruction above the baseline
(x86-64-v3; ARMv8.2 with dotprod), and no folder uses an instruction set that it is not listed with here.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

# Folder of src/kernels/ (and its namespace) -> instruction classes that it may hold. Folders that are not listed, and
# all other code, may hold none.
FOLDERS = {
    "avx2": set(),
    "avx512_vnni": {"avx512"},
    "avx512_amx": {"avx512", "amx"},
    "neon": set(),
    "neon_i8mm": {"i8mm"},
}


def classify_x86(raw, mnemonic, operands):
    # In 64-bit code a first byte of 62 is the EVEX prefix and nothing else; %k0 .. %k7 are its mask registers.
    if raw.startswith("62 ") or "%k" in operands:
        return "avx512"
    if mnemonic.startswith(("tile", "tdp", "ldtilecfg", "sttilecfg")):
        return "amx"
    # VEX forms of what else is newer than AVX2.
    if mnemonic.startswith(("vpdp", "{vex}", "vgf2p8", "vaes", "vpclmul")):
        return "other"
    return None


def classify_arm(_raw, mnemonic, operands):
    if re.fullmatch(r"[su]mmla|usmmla|usdot|sudot", mnemonic):
        return "i8mm"
    if re.fullmatch(r"bf(dot|mmla|mlal[bt]|cvtn?2?)", mnemonic) or re.search(r"\bz\d+\.[bhsdq]", operands):
        return "other"
    return None


def machine(path):
    """ELF's e_machine -> (prefix of binutils, classifier)."""
    with open(path, "rb") as f:
        header = f.read(20)
    known = {62: ("", classify_x86), 183: ("aarch64-linux-gnu-", classify_arm)}
    code = int.from_bytes(header[18:20], "little")
    if header[:4] != b"\x7fELF" or code not in known:
        sys.exit(f"check_symbols: {path}: not an object for x86-64 or 64-bit ARM")
    return known[code]


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def visible_functions(path):
    """Demangled names of defined functions that are not local to the object."""
    prefix, _ = machine(path)
    out = run(prefix + "nm", "--defined-only", "--demangle", path)
    return [m.group(1) for m in re.finditer(r"^[0-9a-f]+ [TWi] (.*)$", out, re.M)]


def instructions(path):
    """(function, class, text) of every instruction above the baseline."""
    prefix, classify = machine(path)
    function = "?"
    process = subprocess.Popen(
        [prefix + "objdump", "-d", "--demangle", "--wide", path], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        parts = line.rstrip("\n").split("\t")
        if len(parts) >= 3:
            text = parts[2] + (" " + parts[3] if len(parts) > 3 else "")
            mnemonic, _, operands = text.partition(" ")
            kind = classify(parts[1], mnemonic, operands)
            if kind is not None:
                yield function, kind, " ".join(text.split())
        elif line.endswith(">:\n"):
            function = line[line.index("<") + 1:-3]
    if process.wait() != 0:
        sys.exit(f"check_symbols: cannot disassemble {path}")


def named_after(name, folder):
    return f"narrow::kernels::{folder}::" in name


def check_object(path, folder):
    """folder: the one of src/kernels/ that the object was compiled from, None elsewhere."""
    problems = []
    allowed = FOLDERS.get(folder, set())
    if allowed:
        for name in visible_functions(path):
            if not named_after(name, folder):
                problems.append(f"{path}: {name} is visible to other objects, which may then run {folder} code; "
                                f"make it static or a template on a type of narrow::kernels::{folder}")
        prefix, _ = machine(path)
        if ".init_array" in run(prefix + "objdump", "-h", path):
            problems.append(f"{path}: code that runs before main(), compiled for {folder}; make its constants constexpr")
    seen = set()
    for function, kind, text in instructions(path):
        if kind not in allowed and (function, kind) not in seen:
            seen.add((function, kind))
            problems.append(f"{path}: {function} holds '{text}' ({kind})")
    return problems


def check_program(path):
    """Visible functions only: what is local was checked in its object."""
    visible = set(visible_functions(path))
    seen, problems = set(), []
    for function, kind, text in instructions(path):
        if function not in visible or (function, kind) in seen:
            continue
        seen.add((function, kind))
        if not any(kind in allowed and named_after(function, folder) for folder, allowed in FOLDERS.items()):
            problems.append(f"{path}: {function} holds '{text}' ({kind})")
    return problems


def check_build(build):
    objects = sorted((build / "src").rglob("*.o"))
    if not objects:
        sys.exit(f"check_symbols: no objects in {build}/src; build it first")
    problems, above = [], 0
    for path in objects:
        parts = path.parts
        inside = parts[parts.index("narrow_kernels.dir") + 1:] if "narrow_kernels.dir" in parts else ()
        folder = inside[0] if len(inside) > 1 else None
        above += bool(FOLDERS.get(folder))
        problems += check_object(path, folder)
    if above == 0:
        sys.exit(f"check_symbols: no kernels above the baseline in {build}: is the list of folders out of date?")
    program = build / "bin" / "narrow"
    if program.exists():
        problems += check_program(program)
    if not problems:
        print(f"{build}: {len(objects)} objects, {above} of them above the baseline"
              + (", and the program" if program.exists() else "") + ": nothing leaks")
    return problems


def self_test():
    leaky_template = """
        namespace narrow::kernels::avx512_vnni { int f(const int*, int); }
        template <class T> [[gnu::noinline]] T sum(const T* p, int n) { T s = 0; while (n > 0) s += p[--n]; return s; }
        int narrow::kernels::avx512_vnni::f(const int* p, int n) { return sum(p, n); }"""
    own_template = leaky_template.replace("template <class T>", "namespace narrow::kernels::avx512_vnni { struct Own; }\n"
                                          "template <class T, class = narrow::kernels::avx512_vnni::Own>")
    starts_early = """
        int g(); namespace narrow::kernels::avx512_vnni { extern const int value; const int value = g(); }"""
    plain = "void f(float* p, int n) { for (int i = 0; i < n; ++i) p[i] *= 2.0f; }"
    vnni = "-march=x86-64-v4"
    cases = [  # what, source, flags, folder, must fail
        ("a shared template", leaky_template, [vnni], "avx512_vnni", True),
        ("a template on an own type", own_template, [vnni], "avx512_vnni", False),
        ("a start-up constant", starts_early, [vnni], "avx512_vnni", True),
        ("AVX-512 in baseline code", plain, [vnni, "-mprefer-vector-width=512"], None, True),
        ("AVX-512 in avx2/", plain, [vnni, "-mprefer-vector-width=512"], "avx2", True),
        ("baseline code", plain, ["-march=x86-64-v3"], None, False),
        ("AMX in avx512_vnni/", 'namespace narrow::kernels::avx512_vnni { void f(); }\n'
         'void narrow::kernels::avx512_vnni::f() { asm volatile("tilerelease"); }', [vnni], "avx512_vnni", True),
    ]
    with tempfile.TemporaryDirectory() as folder:
        source, result = pathlib.Path(folder) / "x.cc", pathlib.Path(folder) / "x.o"
        for what, text, flags, kernels_folder, must_fail in cases:
            source.write_text(text)
            subprocess.run(["g++", "-std=c++20", "-O3", *flags, "-c", source, "-o", result], check=True)
            problems = check_object(result, kernels_folder)
            if bool(problems) != must_fail:
                sys.exit(f"check_symbols --self-test: {what} " + ("passed" if must_fail else f"failed: {problems[0]}"))
        # A program that took the leaking copy.
        source.write_text(plain + " int main() { float x[64] = {}; f(x, 64); return 0; }")
        subprocess.run(["g++", "-O3", vnni, "-mprefer-vector-width=512", source, "-o", result], check=True)
        if not check_program(result):
            sys.exit("check_symbols --self-test: a program with AVX-512 outside its namespaces passed")
    print(f"symbol check: {len(cases) + 1} self-tests passed")


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    problems = [p for build in sys.argv[1:] for p in check_build(pathlib.Path(build))]
    for problem in problems[:40]:
        print(problem, file=sys.stderr)
    if problems:
        sys.exit(f"symbol check: {len(problems)} problems")


main()
