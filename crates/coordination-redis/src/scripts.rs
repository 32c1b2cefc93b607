//! The scripts, each with the names and the shared pieces before it.

use redis::Script;

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        /// One script per operation.
        pub struct Scripts {
            $(pub $name: Script,)*
        }

        impl Scripts {
            /// The scripts, for the names in `prelude`.
            pub fn new(prelude: &str) -> Self {
                let shared = concat!(include_str!("../lua/_lease.lua"), include_str!("../lua/_append.lua"));
                Self {
                    $($name: Script::new(&format!(
                        "{prelude}{shared}{}",
                        include_str!(concat!("../lua/", stringify!($name), ".lua"))
                    )),)*
                }
            }

            /// All of them.
            pub fn all(&self) -> Vec<&Script> {
                vec![$(&self.$name),*]
            }
        }
    };
}

scripts!(
    adopt,
    agree,
    append_if_idle,
    begin,
    begin_log,
    bury,
    claim,
    ensure_due,
    enter,
    forget,
    forget_until,
    hand_over,
    join,
    poke,
    publish,
    release,
    set_trial,
    tick,
    unlock,
    extend_lock,
);
