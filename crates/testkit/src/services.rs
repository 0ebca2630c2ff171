//! PostgreSQL and RabbitMQ for tests: shared ones that `scripts/test` has started, or private ones to disturb.
//!
//! A test of the shared ones keeps to a virtual host and schemas of its own, removed at its end. Must hold: a missing
//! service fails the test and says how to start it; no test is passed over in silence.

mod management;
mod private;
mod schemas;
mod vhost;

pub use private::{PrivateBroker, PrivateDatabase, PrivateServices};
pub use schemas::Schemas;
pub use vhost::Vhost;

use std::io;

use uuid::Uuid;

use management::Management;

const POSTGRES: &str = "BOOKEND_TEST_POSTGRES_URL";
const AMQP: &str = "BOOKEND_TEST_AMQP_URL";
const MANAGEMENT: &str = "BOOKEND_TEST_AMQP_MANAGEMENT_URL";

/// Where PostgreSQL and RabbitMQ are.
#[derive(Clone)]
pub struct Services {
    postgres: Option<String>,
    amqp: Option<String>,
    management: Option<String>,
}

/// Says nothing: addresses have passwords in them.
impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

impl Services {
    /// Those that the environment names, used by all tests beside each other.
    ///
    /// A variable that is missing panics when the service is asked for: a test may need only one of them.
    #[must_use]
    pub fn shared() -> Self {
        #[expect(clippy::disallowed_methods, reason = "tests have no settings, and this is their one place")]
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Both, started for the calling test alone; about five seconds.
    ///
    /// # Panics
    /// When they do not start.
    pub async fn private() -> PrivateServices {
        started(PrivateServices::start(None).await)
    }

    /// PostgreSQL alone, started for the calling test alone; about a second.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn private_postgres() -> PrivateServices {
        started(PrivateServices::start(Some("postgres")).await)
    }

    /// RabbitMQ alone, started for the calling test alone; about five seconds.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn private_rabbitmq() -> PrivateServices {
        started(PrivateServices::start(Some("rabbitmq")).await)
    }

    /// The database's address.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn postgres_url(&self) -> &str {
        wanted(self.postgres.as_deref(), POSTGRES)
    }

    /// The broker's address, without a virtual host.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn amqp_url(&self) -> &str {
        wanted(self.amqp.as_deref(), AMQP)
    }

    /// A virtual host of the calling test's own.
    ///
    /// # Panics
    /// When there is no broker, or it refuses.
    pub async fn vhost(&self) -> Vhost {
        let amqp = self.amqp_url().to_owned();
        let management = Management::parse(wanted(self.management.as_deref(), MANAGEMENT));
        let management = management.unwrap_or_else(|| panic!("{MANAGEMENT} is not http://user:password@host:port"));
        match blocking(move || Vhost::create(management, &amqp)).await {
            Ok(vhost) => vhost,
            Err(error) => panic!("no virtual host was made: {error}"),
        }
    }

    /// Names for schemas of the calling test's own.
    ///
    /// # Panics
    /// When there is no database.
    #[must_use]
    pub fn schemas(&self) -> Schemas {
        Schemas::new(self.postgres_url())
    }

    /// Asks the database something in SQL; one line per row.
    ///
    /// # Errors
    /// When the database's own tool can't be run.
    ///
    /// # Panics
    /// When there is no database.
    pub async fn query(&self, sql: &str) -> io::Result<String> {
        let (url, sql) = (self.postgres_url().to_owned(), sql.to_owned());
        blocking(move || schemas::psql(&url, &sql)).await
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        Self { postgres: variable(POSTGRES), amqp: variable(AMQP), management: variable(MANAGEMENT) }
    }

    /// From what `scripts/services.sh env` prints.
    fn from_script(printed: &str) -> Self {
        Self::from_variables(|name| {
            let mut lines = printed.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
            lines.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
        })
    }
}

fn wanted<'a>(value: Option<&'a str>, variable: &str) -> &'a str {
    value.unwrap_or_else(|| {
        panic!(
            "{variable} is not set: run scripts/test, or eval \"$(scripts/services.sh env)\" after scripts/services.sh up"
        )
    })
}

fn started(services: io::Result<PrivateServices>) -> PrivateServices {
    services.unwrap_or_else(|error| panic!("no services of its own for this test: {error}"))
}

/// Runs what waits for a program or a connection, without holding up the test's own tasks.
async fn blocking<T: Send + 'static>(run: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(run).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// A name that no other test uses, of letters and digits only.
fn unique() -> String {
    // The version is not in the first twelve digits.
    let mut name = Uuid::new_v4().simple().to_string();
    name.truncate(12);
    name.insert(0, 't');
    name
}

#[cfg(test)]
mod tests;
