//! Classes of octets. RFC 9051 §9.

/// ATOM-CHAR.
pub(super) fn is_atom_char(octet: u8) -> bool {
    octet.is_ascii_graphic() && !b"(){%*\"\\]".contains(&octet)
}

/// ASTRING-CHAR.
pub(super) fn is_astring_char(octet: u8) -> bool {
    is_atom_char(octet) || octet == b']'
}

/// `list-char`: a pattern may hold wildcards.
pub(super) fn is_list_char(octet: u8) -> bool {
    is_astring_char(octet) || matches!(octet, b'%' | b'*')
}

/// What a tag is made of.
pub(super) fn is_tag_char(octet: u8) -> bool {
    is_astring_char(octet) && octet != b'+'
}
