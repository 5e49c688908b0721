package strictjson

import "slices"

// Shape is which keys an object may have.
type Shape struct {
	// Name is the object's key, and its name in a problem.
	Name               string
	Required, Optional []string
	// Within are its values that are objects, Lists those that are lists of objects. If a shape has no keys at all, its
	// objects may have any.
	Within, Lists []Shape
}

// Check finds keys that are missing, unknown or repeated; of repeated keys the JSON decoder would take the last. The
// types of other values are left to the decoder.
func (s Shape) Check(r *Reader, v Value) {
	if v.Kind() != "object" {
		r.Problem(v.At, "%s is %s, want an object", s.Name, v.AKind())
		return
	}
	fields := r.Object(v, s.Name, slices.Concat(s.Required, s.Optional))
	for _, key := range s.Required {
		if kind := fields[key].Kind(); kind == "nothing" || kind == "null" {
			r.Problem(v.At, "%s: %q is missing", s.Name, key)
		}
	}
	for _, inner := range s.Within {
		if field := fields[inner.Name]; field.Kind() != "nothing" && field.Kind() != "null" {
			inner.Check(r, field)
		}
	}
	for _, inner := range s.Lists {
		if list := fields[inner.Name]; list.Kind() == "list" {
			for _, element := range r.Elements(list) {
				inner.Check(r, element)
			}
		}
	}
}
