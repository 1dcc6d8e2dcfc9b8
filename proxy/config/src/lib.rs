//! Floor 2: the configuration language, its errors and schema, and the roles that expand to plan's model.
