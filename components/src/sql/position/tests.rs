//! Where parameters stand in statements, and what they are compared with there.

use super::*;
use crate::sql::lexer::Dialect;
use crate::sql::statement::Statement;

fn positions(text: &str) -> Result<Vec<Position>, String> {
    let statement = Statement::parse(text, Dialect::Sqlite).map_err(|(_, message)| message)?;
    Ok(statement.parameters.into_iter().map(|parameter| parameter.position).collect())
}

fn column(name: &str) -> Position {
    Position::Compared(vec![Operand::Column(name.into())])
}

#[test]
fn a_condition_has_parameters_beside_columns() {
    let cast = |kind: &str| Position::Compared(vec![Operand::Cast(kind.into())]);
    for (condition, position) in [
        ("x = :a", column("x")),
        (":a = x", column("x")),
        ("t.x = :a and y", column("x")),
        ("z or :a <= main.t.\"X y\"", column("x y")),
        ("x collate nocase = :a", column("x")),
        ("x = :a collate nocase", column("x")),
        (":a collate nocase <> x collate binary or y", column("x")),
        ("(x) = (:a)", column("x")),
        ("not (((x > :a)))", column("x")),
        ("x is :a", column("x")),
        ("x is not :a", column("x")),
        (":a is not distinct from x", column("x")),
        ("x is distinct from :a", column("x")),
        ("x between :a and 5", column("x")),
        ("x not between 5 and :a", column("x")),
        ("x between y and z and v = :a", column("v")),
        (
            ":a between x and y",
            Position::Compared(vec![Operand::Column("x".into()), Operand::Column("y".into())]),
        ),
        ("x in (:a)", column("x")),
        ("x not in (1, :a)", column("x")),
        ("x = coalesce(:a, x)", column("x")),
        ("x = case when y then :a else z end", column("x")),
        ("x = iif(y, :a, z)", column("x")),
        ("cast(f(x) as integer) > :a", cast("integer")),
        (":a < (cast(f(x) as varchar(3)))", cast("varchar(3)")),
        ("cast(lower(x) as text) in (:a)", cast("text")),
        ("exists (select 1 from u where u.x = t.x and u.y = :a)", column("y")),
        ("x like :a", Position::Any),
        ("x not like :a escape '!'", Position::Any),
        (":a like x", Position::Any),
        ("x like '%' || :a || '%'", Position::Any),
        ("lower(x) = lower(:a)", Position::Any),
        ("x ->> :a = y", Position::Any),
        ("x > datetime('now', :a)", Position::Any),
        ("x = json_extract(:a, '$.k')", Position::Text(vec![Operand::Column("x".into())])),
        ("x = substr(:a, 1, 2)", Position::Text(vec![Operand::Column("x".into())])),
        ("x = lower(trim(:a))", Position::Text(vec![Operand::Column("x".into())])),
        ("x = substr(y, :a, 2)", Position::Any),
        ("cast(x as text) = substr(:a, 1, 2)", Position::Text(vec![Operand::Cast("text".into())])),
        ("lower(x) > 'a' and 5 < y or lower(:a) = 'b'", Position::Any),
        ("length(x) > length(:a)", Position::Any),
        ("cast(strftime('%Y', :a) as integer) = 2026", Position::Any),
        ("cast(length(:a) as integer) = 3", Position::Any),
        ("cast((x = :a) as integer) = 1", column("x")),
        ("cast(x in (:a) as integer) = 1", column("x")),
        ("cast((select y from u where x = :a) as integer) = 1", column("x")),
        ("cast(case when x = :a then 1 end as integer) = 1", column("x")),
        ("cast(:a || 'x' as text) = 'yx'", Position::Any),
        ("cast(:a * 2 as integer) = 4", Position::Number),
        ("cast(trim(:a) as integer) = 4", Position::Cast("integer".into())),
        ("x = :a ->> 'k'", Position::Text(vec![Operand::Column("x".into())])),
        ("x > y + :a", Position::Number),
        ("x > abs(:a)", Position::Number),
        ("length(x) > - :a", Position::Number),
        (":a is null", Position::Any),
        ("length(x) = cast(:a as integer)", Position::Cast("integer".into())),
        ("term > :term and lower(x) <> :lock and x = :a", column("x")),
    ] {
        let found = positions(&format!("select * from t where {condition}"));
        assert_eq!(found.map(|mut found| found.pop()), Ok(Some(position)), "{condition}");
    }
}

#[test]
fn a_parameter_without_a_type_is_refused() {
    for condition in [
        ":x > id+0",
        ":x < id+0",
        ":x <> id+0",
        ":x = id+0",
        "id+0 = :x",
        "0+id = :x",
        "length(n) < :x",
        "id+0 is not :x",
        "id+0 is :x",
        ":x is distinct from id+0",
        ":x in (select id from t)",
        ":x not in (select id+0 from t)",
        ":x in (1, 2)",
        "case :x when 2 then 1 else 0 end",
        "case id when :x then 1 end",
        "iif(:x > 10, 1, 0)",
        "id > min(:x, 10)",
        "id > max(1, :x)",
        ":x between 1 and 3",
        "id+0 between :x and 3",
        "id+0 between 1 and :x",
        "id+0 > coalesce(:x, 0)",
        "(id+0) = (:x)",
        "id+0 = :x collate nocase",
        "id+0 in (:x)",
        "lower(n) in (1, :x)",
        "(id, n) = (1, :x)",
        "(id, n) > (:x, 'a')",
        "(id, n) in (values (:x, 1))",
        "nullif(:x, 0) is null",
        "id = nullif(:x, 0)",
        ":x = 5",
        "5 < :x",
        "'a' = :x",
        "-id = :x",
        "id = :x = 1",
        "1 = id = :x",
        "id = (select :x)",
        ":x",
        "not :x",
        "id and :x",
        "id+0 = json_extract(:x, '$')",
        "id+0 = :x ->> 'k'",
        "id+0 = (select max(:x))",
        "unknown(:x)",
        "id+0 = case when n then :x end",
        "id between 1 and n = :x",
        "id in (select n union select :x)",
        "current_date > :x",
        "count(*) > :x",
    ] {
        let error = positions(&format!("select * from t where {condition}")).expect_err(condition);
        assert!(error.contains("write `cast(:x as integer)` or `cast(:x as text)`"), "{condition}: {error}");
    }
}

#[test]
fn a_text_that_a_parameter_is_a_part_of_is_no_number() {
    for condition in [
        "id = cast(substr(:x, 1, 2) as integer)",
        "id = cast(replace(:x, ',', '') as numeric)",
        "id = cast(lower(trim(:x)) as real)",
        "id = cast(:x || '' as integer)",
        "id = cast((:x || '') as integer)",
        "id = cast('1' || :x as integer)",
        "id = cast(json_extract(:x, '$.k') as integer)",
        "id = cast(:x ->> 'k' as integer)",
        "id = cast(case when n then substr(:x, 1, 2) else '0' end as integer)",
        "id = cast((select substr(:x, 1, 2)) as integer)",
        "id = cast(coalesce(substr(:x, 1, 2), '0') as integer)",
        "id = cast(printf('%s', :x) as integer)",
    ] {
        let error = positions(&format!("select * from t where {condition}")).expect_err(condition);
        assert!(error.contains("SQLite makes 0 of a text that is no number"), "{condition}: {error}");
    }
    for condition in [
        "substr(:x, 1, 2) > 5",
        "5 = substr(:x, 1, 2)",
        "length(n) > substr(:x, 1, 2)",
        "substr(:x, 1, 2) < length(n)",
        "id + 0 = lower(:x)",
        "id = substr(:x, 1, 2) + 0",
        "cast(n as integer) < trim(:x)",
        "lower(substr(:x, 1, 2)) < 5",
    ] {
        let error = positions(&format!("select * from t where {condition}")).expect_err(condition);
        assert!(error.contains("or cast the other side"), "{condition}: {error}");
    }
}

#[test]
fn a_text_that_is_made_of_a_parameter_stands_beside_texts_alone() {
    for condition in [
        "length(name) < (:a || '')",
        "id + 0 < :a || ''",
        "(id + 0) < lower(:a)",
        "id + 0 not in (:a || '')",
        "id + 0 in (lower(:a))",
        "length(name) < printf('%s', :a)",
        "length(name) < replace('1', '1', :a)",
        "coalesce(id, 0) < lower(:a)",
        "(select max(id) from p) < lower(:a)",
        "max(id, 2) < lower(:a)",
        "case when id = 1 then 2 end < lower(:a)",
        "id + 0 < case when id = 1 then lower(:a) end",
        "id + 0 < (select lower(:a))",
        "id + 0 < max(lower(:a), 0)",
        "coalesce(trim(:a), '') > id + 0",
        "id + 0 between lower(:a) and 'b'",
        "abs(lower(:a)) = 0",
    ] {
        let found = positions(&format!("select 1 from p where {condition}"));
        assert!(
            found.clone().is_err_and(|error| error.contains("write `cast(:a as")),
            "{condition}: {found:?}"
        );
    }
    for condition in [
        "'x' || name = 'x' || :a",
        "lower(name) = lower(:a)",
        "'a' = lower(:a)",
        "name like '%' || :a || '%'",
        "(name like '%' || lower(:a) || '%') and length(name) > 1",
        "substr(name, 1, length(:a)) = 'b'",
        "instr(lower(name), lower(:a)) > 0",
        "length(:a || '') > 1",
        "exists (select lower(:a))",
    ] {
        let found = positions(&format!("select 1 from p where {condition}"));
        assert!(found.is_ok(), "{condition}: {found:?}");
    }
}

#[test]
fn a_name_of_an_expression_is_no_column() {
    for statement in [
        "select id+0 as k from t where k > :x",
        "select id+0 k from t where k > :x",
        "select * from (select id+0 as id from t) where id > :x",
        "with p(id) as (select id+0 from t) select * from p where id > :x",
        "with p as (select :x as x) select * from p",
        "select value from json_each('[1]') where value = :x",
        "select n, count(*) as k from t group by n having k > :x",
        "select 1 union select :x",
        "select id from t except select :x",
        "update t set a = b = :x + 0 = :x",
        "select id from t limit (select max(:x))",
    ] {
        assert!(positions(statement).is_err(), "{statement}");
    }
    let error = positions("select * from t order by :x").unwrap_err();
    assert!(error.contains("never the name of a column"), "{error}");
}

#[test]
fn what_is_written_goes_into_a_column() {
    let target = |name: &str| match name.split_once('#') {
        None if name.is_empty() => Target::Unknown,
        None => Target::Column(name.into()),
        Some((table, item)) => Target::Nth(table.into(), item.parse().unwrap()),
    };
    let stored = |names: &[&str]| names.iter().map(|name| Position::Stored(target(name))).collect::<Vec<_>>();
    for (statement, expected) in [
        ("insert into t values (:a, :b), (1, :c)", stored(&["t#0", "t#1", "t#1"])),
        ("insert into main.\"T\" as u values (:a)", stored(&["t#0"])),
        ("insert into t (x, \"Y\") values (1, :a), (:b, coalesce(:c, 5))", stored(&["y", "x", "y"])),
        ("insert or replace into main.t(x) values (iif(x is null, :a, (:b)))", stored(&["x", "x"])),
        ("insert into t (x) select :a from u where not exists (select 1 from t)", stored(&["x"])),
        ("insert into t (x, y) select distinct 1, :a from u union all select :b, 2", stored(&["y", "x"])),
        ("insert into t select u.*, :a from u", stored(&[""])),
        ("insert into t with w as (select 1) select 1, :a from w", stored(&["t#1"])),
        ("update t set x = :a, y = :b where z", stored(&["x", "y"])),
        ("update t set (x, y) = (:a, :b)", stored(&["x", "y"])),
        ("update t set x = case when y then :a else :b end", stored(&["x", "x"])),
        ("insert into t values (1) on conflict (x) do update set x = :a", stored(&["x"])),
        ("update t set x = x + :a", vec![Position::Number]),
        ("update t set x = x || :a returning :b", vec![Position::Made(target("x")), Position::Any]),
        ("insert into t (x) values (cast(:a as text))", vec![Position::StoredText(target("x"))]),
        ("select :a, x, :b as b from t limit :c offset :d", vec![Position::Any; 4]),
        ("select x from t limit :a, :b", vec![Position::Any; 2]),
        ("values (:a)", stored(&[""])),
        (
            "delete from t where x in (select cast(value as text) from json_each(:a)) and y = :b",
            vec![Position::Any, column("y")],
        ),
        ("select t.id as id from t join u as v on v.k = :a where t.id = :b", vec![column("k"), column("id")]),
    ] {
        assert_eq!(positions(statement), Ok(expected), "{statement}");
    }
}
