//! Schemas of a test's own in a shared database.
//!
//! Must hold: nothing outside the prefix is touched.

use std::process::{Command, Stdio};

use super::unique;

/// Names for schemas that no other test uses; the schemas are dropped with it.
#[derive(Debug)]
pub struct Schemas {
    url: String,
    prefix: String,
}

impl Schemas {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), prefix: unique() }
    }

    /// The database they are in.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The name of an owner's schema; making it is the owner's own business.
    #[must_use]
    pub fn name(&self, owner: &str) -> String {
        format!("{}_{owner}", self.prefix)
    }
}

impl Drop for Schemas {
    fn drop(&mut self) {
        // The prefix has hexadecimal digits only. One transaction per schema keeps the number of locks small; a schema
        // in use is left: a test must not hang because of what it forgot to close.
        let commands = format!(
            "\\set ON_ERROR_STOP off\nset lock_timeout = '5s';\nset statement_timeout = '30s';\n\
             select format('drop schema %I cascade', nspname) from pg_namespace \
             where starts_with(nspname, '{}_') \\gexec\n",
            self.prefix,
        );
        // A failure leaves nothing to do: a private database may be gone already.
        let _ = psql(&self.url, &commands);
    }
}

/// Runs commands through the tool that comes with the server; gives what it printed. Stops at the first that fails.
pub(super) fn psql(url: &str, commands: &str) -> std::io::Result<String> {
    use std::io::Write;

    let mut child = Command::new("psql")
        .args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--set", "ON_ERROR_STOP=on", "--dbname", url])
        .env("PGCONNECT_TIMEOUT", "10")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Fails only when it has ended already, which its answer tells.
        let _ = stdin.write_all(commands.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_one_test() {
        // Nothing answers at this address, and dropping them must not mind.
        let (one, two) = (Schemas::new("postgres://127.0.0.1:1/none"), Schemas::new("postgres://127.0.0.1:1/none"));
        let name = one.name("engine");
        let (prefix, owner) = name.split_once('_').unwrap();
        assert!(prefix.len() == 13 && prefix.starts_with('t') && owner == "engine", "{name}");
        assert!(prefix[1..].bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        assert_ne!(name, two.name("engine"));
    }
}
