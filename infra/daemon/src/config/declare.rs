//! What `settings!` makes of a declaration: per field its name, documentation, default and how it is read.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

use super::{Settings, read::FieldReader};

/// Declares a settings struct: fields with documentation and default value. See [`config`](mod@crate::config).
///
/// The struct gets `Clone`, `Debug`, `Default`, `Serialize` and a `Deserialize` that refuses unknown keys. Add
/// `impl Settings for … {}`, with `problems` where values have ranges.
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        $vis:vis struct $name:ident {
            $( $(#[doc = $doc:literal])* $field_vis:vis $field:ident : $type:ty = $default:expr ),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, $crate::config::serde::Serialize, $crate::config::serde::Deserialize)]
        #[serde(crate = "daemon::config::serde", default, deny_unknown_fields)]
        $vis struct $name {
            $( $(#[doc = $doc])* $field_vis $field: $type, )*
        }

        impl ::std::default::Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $crate::config::Fields for $name {
            fn fields() -> ::std::vec::Vec<$crate::config::Field> {
                #[allow(unused_imports)]
                use $crate::config::{AsPlain as _, AsSection as _};
                ::std::vec![ $( $crate::config::Field {
                    name: ::std::stringify!($field),
                    doc: &[ $( $doc ),* ],
                    section: (&$crate::config::Probe::<$type>::new()).section(),
                } ),* ]
            }

            fn read(reader: &mut $crate::config::FieldReader<'_>, defaults: Self) -> Self {
                #[allow(unused_imports)]
                use $crate::config::{AsPlain as _, AsSection as _};
                Self { $(
                    $field: (&$crate::config::Probe::<$type>::new())
                        .read(reader, ::std::stringify!($field), defaults.$field),
                )* }
            }
        }
    };
}

/// One declared setting.
#[doc(hidden)]
pub struct Field {
    pub name: &'static str,
    pub doc: &'static [&'static str],
    /// The fields of the section, when the setting is one.
    pub section: Option<Vec<Field>>,
}

/// Implemented by `settings!`.
#[doc(hidden)]
pub trait Fields: Sized {
    fn fields() -> Vec<Field>;
    fn read(reader: &mut FieldReader<'_>, defaults: Self) -> Self;
}

/// Tells a section from a plain value by the type alone: `Probe<T>` itself answers when `T` is [`Settings`],
/// and only otherwise does method lookup reach the answer on `&Probe<T>`.
#[doc(hidden)]
pub struct Probe<T>(PhantomData<T>);

impl<T> Probe<T> {
    #[must_use]
    #[expect(clippy::new_without_default, reason = "only the macro makes one")]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

#[doc(hidden)]
pub trait AsSection<T> {
    fn section(&self) -> Option<Vec<Field>>;
    fn read(&self, reader: &mut FieldReader<'_>, name: &'static str, default: T) -> T;
}

impl<T: Settings> AsSection<T> for Probe<T> {
    fn section(&self) -> Option<Vec<Field>> {
        Some(T::fields())
    }

    fn read(&self, reader: &mut FieldReader<'_>, name: &'static str, default: T) -> T {
        reader.section(name, default)
    }
}

#[doc(hidden)]
pub trait AsPlain<T> {
    fn section(&self) -> Option<Vec<Field>>;
    fn read(&self, reader: &mut FieldReader<'_>, name: &'static str, default: T) -> T;
}

impl<T: DeserializeOwned + Serialize> AsPlain<T> for &Probe<T> {
    fn section(&self) -> Option<Vec<Field>> {
        None
    }

    fn read(&self, reader: &mut FieldReader<'_>, name: &'static str, default: T) -> T {
        reader.plain(name, default)
    }
}
