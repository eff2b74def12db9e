"""The reading side of certificates: schema, sums, signature, HTML, verification, differences and merging."""
