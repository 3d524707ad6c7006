"""Recorded activations of the reference implementation, compared with ours: `pytest tests/golden --golden DIR`.

A family of cases is one module here with `CASES: dict[str, Callable[[Case], None]]`, found by its presence: nothing to
register. The key is the name of a case, or its beginning (`timenoise_` runs `timenoise_svd`, too); the longest wins.
The function reads everything (shapes, seeds, settings, names of runs) from the case and calls

    case.compare("smax100.init", ours)            `out.smax100.init`, largest error within a share of its range
    case.defect("smax100.as_published.init")      a known defect of the reference: counted apart, not compared

An output that is neither compared nor set apart fails the case; so does a case of a built family without a function.
"""
