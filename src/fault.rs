//! Who has to act on an error.

/// The one at whose side the cause of an error lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The author of the policy, or of a file that it names.
    Document,
    /// The identity provider, or the way to it.
    Provider,
    /// The gateway: its machine, its files, or a defect of tenantauth.
    Gateway,
}
