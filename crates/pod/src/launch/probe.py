# Run by `pod launch` as `python3 -c`: prints who this interpreter is, and whether the pip argument lists in argv[1] are
# satisfied by what is installed. When in doubt it says no: pip then decides.
import json
import re
import site
import sys
import sysconfig
from importlib import metadata

VALUED = {"-i", "--index-url", "--extra-index-url", "--trusted-host", "-f", "--find-links", "--retries", "--timeout"}
PLAIN = {
    "--quiet", "-q", "-qq", "-qqq", "--no-warn-script-location", "--no-deps", "--disable-pip-version-check",
    "--no-cache-dir", "--no-index", "--no-input", "--prefer-binary", "--user", "--no-build-isolation",
}


class Unmet(Exception):
    pass


def requirement_class():
    try:
        from packaging.requirements import Requirement
    except ImportError:
        try:
            from pip._vendor.packaging.requirements import Requirement
        except ImportError:
            Requirement = None
    return Requirement


def split(arguments):
    wanted, deps, rest = [], True, list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument in VALUED:
            if rest:
                rest.pop(0)
        elif argument == "--no-deps":
            deps = False
        elif argument in PLAIN or argument.split("=", 1)[0] in VALUED:
            pass
        elif argument.startswith("-") or "://" in argument or argument.startswith((".", "/")) or "@" in argument:
            raise Unmet(argument + " is left to pip")
        else:
            wanted.append(argument)
    return wanted, deps


def check(text, deps, Requirement, seen):
    if Requirement is None:
        # Neither packaging nor pip: only a bare name or an exact version can be judged.
        match = re.fullmatch(r"\s*([A-Za-z0-9._-]+)\s*(?:==\s*([A-Za-z0-9.+!-]+))?\s*", text)
        if not match or deps:
            raise Unmet("neither packaging nor pip is there to judge " + text)
        name, version, extras, spec = match.group(1), match.group(2), (), None
    else:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            return
        name, version, extras, spec = requirement.name, None, requirement.extras, requirement.specifier
    key = (re.sub(r"[-_.]+", "-", name).lower(), tuple(sorted(extras)), str(spec or version), deps)
    if key in seen:
        return
    seen.add(key)
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise Unmet(name + " is not installed")
    if version is not None and found.version != version:
        raise Unmet("%s is %s, %s is wanted" % (name, found.version, version))
    if spec is not None and not spec.contains(found.version, prereleases=True):
        raise Unmet("%s is %s, %s is wanted" % (name, found.version, spec))
    if not deps:
        return
    for line in found.requires or ():
        below = Requirement(line)
        if below.marker is not None:
            if not any(below.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            below.marker = None
        check(str(below), True, Requirement, seen)


def main():
    satisfied, reason = True, ""
    try:
        Requirement, seen = requirement_class(), set()
        for arguments in json.loads(sys.argv[1]):
            wanted, deps = split(arguments)
            for text in wanted:
                check(text, deps, Requirement, seen)
    except Exception as error:
        satisfied, reason = False, str(error) or repr(error)
    folders = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    if site.ENABLE_USER_SITE and site.getusersitepackages() not in folders:
        folders.append(site.getusersitepackages())
    print(json.dumps({
        "version": sys.version,
        "platform": sysconfig.get_platform(),
        "site": folders,
        "satisfied": satisfied,
        "reason": reason,
    }))


main()
