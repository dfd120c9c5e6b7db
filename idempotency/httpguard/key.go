package httpguard

import "strings"

// parseKey reads the header: a quoted string, as the draft has it, or the bare key that everybody sends. Lists and
// parameters are refused, and so is a repeated header: nobody can know which key was meant.
func parseKey(values []string) (string, bool) {
	if len(values) != 1 {
		return "", false
	}
	v := strings.Trim(values[0], " \t")
	quoted := strings.HasPrefix(v, `"`)
	if quoted {
		var ok bool
		if v, ok = unquote(v); !ok {
			return "", false
		}
	}
	if v == "" || len(v) > 255 {
		return "", false
	}
	for i := range len(v) {
		if v[i] <= ' ' || v[i] > '~' || (v[i] == ',' && !quoted) {
			return "", false
		}
	}
	return v, true
}

// unquote reads a string of RFC 8941, section 3.3.3, that is the whole of v.
func unquote(v string) (string, bool) {
	var b strings.Builder
	for i := 1; i < len(v); i++ {
		switch v[i] {
		case '"':
			return b.String(), i == len(v)-1
		case '\\':
			i++
			if i == len(v) || (v[i] != '"' && v[i] != '\\') {
				return "", false
			}
		}
		b.WriteByte(v[i])
	}
	return "", false
}
