"""Known vulnerabilities of what is installed, as pip-audit finds them; fails for any.

    python .ci/audit.py AUDITED_PYTHON      # run by a Python that has pip-audit

pip-audit asks a service on the network. Where that does not answer, or does not know the packages, this says how many were
not looked up, and does not call them safe.
"""

import json
import subprocess
import sys


def judged(report: dict) -> tuple[list[str], int]:
    """What a report of pip-audit (``--format json``) says: sentences, and 1 if anything is vulnerable."""
    found = report["dependencies"]
    skipped = [d["name"] for d in found if "skip_reason" in d]
    bad = [(d["name"], d["version"], v["id"]) for d in found for v in d.get("vulns", [])]
    told = [f"{name} {version} is vulnerable: {what}" for name, version, what in bad]
    told.append(f"{len(found) - len(skipped)} packages looked up, {len(bad)} vulnerabilities")
    if skipped:
        told.append(f"NOT LOOKED UP, so not known to be safe: {len(skipped)} packages ({', '.join(skipped[:5])}, ...)")
    return told, int(bool(bad))


def main(python: str) -> int:
    """Audits the environment of a Python."""
    frozen = subprocess.run(
        [python, "-m", "pip", "freeze", "--exclude-editable"], capture_output=True, check=True
    ).stdout
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--no-deps", "--disable-pip", "-r", "/dev/stdin"]
    run = subprocess.run(command, input=frozen, capture_output=True, check=False)
    try:
        told, code = judged(json.loads(run.stdout))
    except (ValueError, KeyError):
        told, code = (
            [f"NOT AUDITED: pip-audit gave no report ({run.stderr.decode(errors='replace')[-200:].strip()})"],
            0,
        )
    print("\n".join(told))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
