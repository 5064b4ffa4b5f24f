//! Configuration files of peers: texts for their own experts, with `{{name}}` where the lab has its say.

/// The text with every `{{name}}` replaced.
///
/// Panics if the text names what is not given, or is not given what it names: both are checked in, and tested.
pub(super) fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut filled = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, named)) = rest.split_once("{{") {
        let (name, behind) = named.split_once("}}").expect("a placeholder ends");
        let value = values.iter().find(|(known, _)| *known == name);
        filled.push_str(before);
        filled.push_str(&value.unwrap_or_else(|| panic!("nothing is known for {name}")).1);
        rest = behind;
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_values_and_braces_of_the_peer_stay() {
        let values = [("a", "1".to_owned()), ("b", "{{a}}".to_owned())];
        assert_eq!(fill("x { {{a}} } {{b}}{{a}}", &values), "x { 1 } {{a}}1");
    }

    #[test]
    #[should_panic(expected = "nothing is known for c")]
    fn an_unknown_name_is_a_bug() {
        fill("{{c}}", &[("a", String::new())]);
    }
}
