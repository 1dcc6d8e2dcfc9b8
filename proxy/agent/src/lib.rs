//! Floor 3: everything off the worker cores: files, names, log writing and the admin endpoint.
