//! Which names say that their value is secret.
