"""What users test with: conformance checks of the ports, a clock and fault points."""
