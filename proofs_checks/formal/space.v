(** The room all theorems live in: real normed spaces (Coquelicot's) and real inner product spaces.

    [V : NormedModule R_AbsRing] is a real normed vector space, [V : CompleteNormedModule R_AbsRing] a real
    Banach space.  An inner product is added by the class [InnerProduct], so that a real Hilbert space is a
    [CompleteNormedModule] with an [InnerProduct].  R and products are instances, hence so is every R^d. *)

From Coq Require Import Reals Lra List.
From Coquelicot Require Import Coquelicot.
Open Scope R_scope.

(** Vectors: [u [+] v], [u [-] v], [a [*] u]; real numbers keep [+], [-], [*]. *)
Notation "u [+] v" := (@plus (NormedModule.AbelianGroup R_AbsRing _) u v) (at level 50, left associativity).
Notation "u [-] v" := (@minus (NormedModule.AbelianGroup R_AbsRing _) u v) (at level 50, left associativity).
Notation "a [*] u" := (@scal R_AbsRing (NormedModule.ModuleSpace R_AbsRing _) a u) (at level 40, left associativity).

(** A real inner product that induces the norm of [V]. *)
Class InnerProduct (V : NormedModule R_AbsRing) := {
  inner : V -> V -> R;
  inner_sym : forall u v : V, inner u v = inner v u;
  inner_plus : forall u v w : V, inner (u [+] v) w = inner u w + inner v w;
  inner_scal : forall (a : R) (u v : V), inner (a [*] u) v = a * inner u v;
  inner_norm : forall u : V, inner u u = norm u ^ 2
}.

Notation "⟨ u , v ⟩" := (inner u v) (at level 0, u at level 99, v at level 99, format "⟨ u ,  v ⟩").

(** * Vector identities

    [vector] proves an equality of linear combinations by comparing the coefficients of every vector. *)

Inductive vexp :=
  | VVar (i : nat)
  | VZero
  | VPlus (a b : vexp)
  | VOpp (a : vexp)
  | VScal (r : R) (a : vexp).

Fixpoint veval {V : NormedModule R_AbsRing} (l : list V) (e : vexp) : V :=
  match e with
  | VVar i => nth i l zero
  | VZero => zero
  | VPlus a b => veval l a [+] veval l b
  | VOpp a => opp (veval l a)
  | VScal r a => r [*] veval l a
  end.

Fixpoint vcoef (e : vexp) (i : nat) : R :=
  match e with
  | VVar j => if Nat.eqb i j then 1 else 0
  | VZero => 0
  | VPlus a b => vcoef a i + vcoef b i
  | VOpp a => - vcoef a i
  | VScal r a => r * vcoef a i
  end.

Fixpoint vsum {V : NormedModule R_AbsRing} (l : list V) (c : nat -> R) : V :=
  match l with
  | nil => zero
  | cons x l => c O [*] x [+] vsum l (fun i => c (S i))
  end.

Lemma vsum_ext {V : NormedModule R_AbsRing} (l : list V) (c d : nat -> R) :
  (forall i, (i < length l)%nat -> c i = d i) -> vsum l c = vsum l d.
Proof.
  revert c d; induction l as [|x l IH]; intros c d H; simpl; [reflexivity|].
  rewrite (H O) by (simpl; apply Nat.lt_0_succ).
  f_equal; apply IH; intros i Hi; apply H; simpl; now apply le_n_S.
Qed.

Lemma vsum_zero {V : NormedModule R_AbsRing} (l : list V) : vsum l (fun _ => 0) = zero.
Proof.
  induction l as [|x l IH]; simpl; [reflexivity|].
  rewrite IH, plus_zero_r; exact (scal_zero_l x).
Qed.

Lemma vsum_plus {V : NormedModule R_AbsRing} (l : list V) (c d : nat -> R) :
  vsum l (fun i => c i + d i) = vsum l c [+] vsum l d.
Proof.
  revert c d; induction l as [|x l IH]; intros c d; simpl; [now rewrite plus_zero_r|].
  rewrite (IH (fun i => c (S i)) (fun i => d (S i))).
  replace ((c O + d O) [*] x) with (c O [*] x [+] d O [*] x) by (symmetry; exact (scal_distr_r (c O) (d O) x)).
  rewrite <- !plus_assoc; f_equal; rewrite !plus_assoc; f_equal; apply plus_comm.
Qed.

Lemma vsum_scal {V : NormedModule R_AbsRing} (l : list V) (r : R) (c : nat -> R) :
  vsum l (fun i => r * c i) = r [*] vsum l c.
Proof.
  revert c; induction l as [|x l IH]; intros c; simpl; [symmetry; exact (@scal_zero_r _ V r)|].
  rewrite (IH (fun i => c (S i))); symmetry.
  etransitivity; [exact (@scal_distr_l _ V r (c O [*] x) (vsum l (fun i => c (S i))))|].
  f_equal; exact (@scal_assoc _ V r (c O) x).
Qed.

Lemma veval_vsum {V : NormedModule R_AbsRing} (l : list V) (e : vexp) : veval l e = vsum l (vcoef e).
Proof.
  induction e as [i| |a IHa b IHb|a IHa|r a IHa]; simpl.
  - revert i; induction l as [|x l IH]; intros [|i]; simpl; try reflexivity.
    + rewrite vsum_zero, plus_zero_r; symmetry; exact (scal_one x).
    + rewrite IH; simpl.
      replace (0 [*] x) with (zero : V) by (symmetry; exact (scal_zero_l x)).
      now rewrite plus_zero_l.
  - symmetry; apply vsum_zero.
  - now rewrite IHa, IHb, <- vsum_plus.
  - rewrite IHa; transitivity ((- (1)) [*] vsum l (vcoef a)).
    + symmetry; exact (@scal_opp_one _ V (vsum l (vcoef a))).
    + rewrite <- vsum_scal; apply vsum_ext; intros i _; ring.
  - now rewrite IHa, <- vsum_scal.
Qed.

Lemma vector_eq {V : NormedModule R_AbsRing} (l : list V) (a b : vexp) :
  (forall i, (i < length l)%nat -> vcoef a i = vcoef b i) -> veval l a = veval l b.
Proof. intros H; rewrite !veval_vsum; now apply vsum_ext. Qed.

Ltac vmem x l :=
  lazymatch l with
  | nil => constr:(false)
  | cons x _ => constr:(true)
  | cons _ ?l => vmem x l
  end.
Ltac vatoms e l :=
  lazymatch e with
  | plus ?a ?b => let l := vatoms a l in vatoms b l
  | minus ?a ?b => let l := vatoms a l in vatoms b l
  | opp ?a => vatoms a l
  | scal _ ?a => vatoms a l
  | zero => l
  | _ => lazymatch vmem e l with true => l | false => constr:(cons e l) end
  end.
Ltac vindex x l :=
  lazymatch l with
  | cons x _ => constr:(O)
  | cons _ ?l => let i := vindex x l in constr:(S i)
  end.
Ltac vreify e l :=
  lazymatch e with
  | plus ?a ?b => let a := vreify a l in let b := vreify b l in constr:(VPlus a b)
  | minus ?a ?b => let a := vreify a l in let b := vreify b l in constr:(VPlus a (VOpp b))
  | opp ?a => let a := vreify a l in constr:(VOpp a)
  | scal ?r ?a => let a := vreify a l in constr:(VScal r a)
  | zero => constr:(VZero)
  | _ => let i := vindex e l in constr:(VVar i)
  end.
(** [vector_by tac] leaves to [tac] the equality of each coefficient, in R. *)
Ltac vector_by tac :=
  lazymatch goal with
  | |- @eq ?T ?a ?b =>
      let l := vatoms a (@nil T) in
      let l := vatoms b l in
      let ea := vreify a l in
      let eb := vreify b l in
      refine (vector_eq l ea eb _);
      let i := fresh "i" in
      let Hi := fresh "Hi" in
      intros i Hi; simpl in Hi;
      repeat (destruct i as [|i]; [clear Hi; simpl; tac|apply le_S_n in Hi]);
      exfalso; inversion Hi
  end.
Ltac vector := vector_by ltac:(try ring).

(** * Norms *)

Lemma norm_scal_eq {V : NormedModule R_AbsRing} (a : R) (u : V) : norm (a [*] u) = Rabs a * norm u.
Proof.
  apply Rle_antisym; [exact (norm_scal a u)|].
  destruct (Req_dec a 0) as [->|Ha].
  - rewrite Rabs_R0, Rmult_0_l; apply norm_ge_0.
  - replace (norm u) with (norm ((/ a) [*] (a [*] u))) by (f_equal; vector_by ltac:(now field)).
    replace (norm (a [*] u)) with (Rabs a * (Rabs (/ a) * norm (a [*] u))).
    + apply Rmult_le_compat_l; [apply Rabs_pos|exact (norm_scal (/ a) (a [*] u))].
    + rewrite <- Rmult_assoc, <- Rabs_mult, Rinv_r, Rabs_R1 by exact Ha; ring.
Qed.

Lemma norm_minus_sym {V : NormedModule R_AbsRing} (u v : V) : norm (u [-] v) = norm (v [-] u).
Proof. rewrite <- norm_opp; f_equal; vector. Qed.

Lemma norm_minus_triangle {V : NormedModule R_AbsRing} (u v w : V) :
  norm (u [-] w) <= norm (u [-] v) + norm (v [-] w).
Proof.
  replace (u [-] w) with ((u [-] v) [+] (v [-] w)) by vector.
  apply norm_triangle.
Qed.

Lemma norm_minus_refl {V : NormedModule R_AbsRing} (u : V) : norm (u [-] u) = 0.
Proof. replace (u [-] u) with (zero : V) by vector; apply norm_zero. Qed.

Lemma norm_minus_eq {V : NormedModule R_AbsRing} (u v : V) : norm (u [-] v) <= 0 -> u = v.
Proof.
  intros H; assert (E : u [-] v = zero).
  { apply norm_eq_zero, Rle_antisym; [exact H|apply norm_ge_0]. }
  replace u with ((u [-] v) [+] v) by vector; rewrite E; vector.
Qed.

(** * Completeness *)

(** Every sequence whose terms get close to each other has a limit. *)
Definition complete (V : NormedModule R_AbsRing) : Prop :=
  forall x : nat -> V,
  (forall e, 0 < e -> exists N : nat, forall j k, (N <= j)%nat -> (N <= k)%nat -> norm (x j [-] x k) < e) ->
  exists y : V, forall e, 0 < e -> exists N : nat, forall k, (N <= k)%nat -> norm (x k [-] y) < e.

(** The library's complete normed spaces are complete in this sense, R for one; so are products. *)
Lemma complete_normed (V : CompleteNormedModule R_AbsRing) : complete V.
Proof.
  intros x H.
  destruct (proj1 (@filterlim_locally_cauchy nat V eventually eventually_filter x)) as [y Hy].
  - intros [e He]; destruct (H e He) as [N HN].
    exists (fun k => (N <= k)%nat); split; [now exists N|].
    intros j k Hj Hk; apply (norm_compat1 (x j) (x k)); now apply HN.
  - exists y; intros e He.
    assert (Hn := proj1 (@filterlim_locally_ball_norm R_AbsRing nat V eventually _ x y) Hy).
    destruct (Hn (mkposreal e He)) as [N HN].
    now exists N.
Qed.

Lemma complete_R : complete R_NormedModule.
Proof. exact (complete_normed R_CompleteNormedModule). Qed.

Lemma complete_prod (U V : NormedModule R_AbsRing) :
  complete U -> complete V -> complete (prod_NormedModule R_AbsRing U V).
Proof.
  intros HU HV x H.
  assert (E : forall a b : U * V, norm (a [-] b) = sqrt (norm (fst a [-] fst b) ^ 2 + norm (snd a [-] snd b) ^ 2))
    by reflexivity.
  destruct (HU (fun k => fst (x k))) as [y Hy].
  { intros e He; destruct (H e He) as [N HN]; exists N; intros j k Hj Hk.
    apply Rle_lt_trans with (2 := HN j k Hj Hk); rewrite E.
    apply Rle_trans with (1 := Rle_abs _); rewrite <- sqrt_Rsqr_abs; apply sqrt_le_1_alt; unfold Rsqr.
    assert (0 <= norm (snd (x j) [-] snd (x k)) ^ 2) by apply pow2_ge_0; lra. }
  destruct (HV (fun k => snd (x k))) as [z Hz].
  { intros e He; destruct (H e He) as [N HN]; exists N; intros j k Hj Hk.
    apply Rle_lt_trans with (2 := HN j k Hj Hk); rewrite E.
    apply Rle_trans with (1 := Rle_abs _); rewrite <- sqrt_Rsqr_abs; apply sqrt_le_1_alt; unfold Rsqr.
    assert (0 <= norm (fst (x j) [-] fst (x k)) ^ 2) by apply pow2_ge_0; lra. }
  exists (y, z); intros e He.
  destruct (Hy (e / 2)) as [N HN]; [lra|]; destruct (Hz (e / 2)) as [M HM]; [lra|].
  exists (max N M); intros k Hk; rewrite E; simpl.
  specialize (HN k (Nat.le_trans _ _ _ (Nat.le_max_l N M) Hk)).
  specialize (HM k (Nat.le_trans _ _ _ (Nat.le_max_r N M) Hk)).
  simpl in HN, HM; set (a := norm (fst (x k) [-] y)) in *; set (b := norm (snd (x k) [-] z)) in *.
  assert (0 <= a) by apply norm_ge_0; assert (0 <= b) by apply norm_ge_0.
  apply Rle_lt_trans with (a + b); [|lra].
  rewrite <- (sqrt_pow2 (a + b)) by lra; apply sqrt_le_1_alt.
  assert (0 <= a * b) by now apply Rmult_le_pos. lra.
Qed.

(** * Inner products *)

Lemma inner_plus_r {V : NormedModule R_AbsRing} {ip : InnerProduct V} (u v w : V) :
  ⟨u, v [+] w⟩ = ⟨u, v⟩ + ⟨u, w⟩.
Proof. now rewrite inner_sym, inner_plus, (inner_sym v), (inner_sym w). Qed.

Lemma inner_scal_r {V : NormedModule R_AbsRing} {ip : InnerProduct V} (a : R) (u v : V) :
  ⟨u, a [*] v⟩ = a * ⟨u, v⟩.
Proof. now rewrite inner_sym, inner_scal, (inner_sym v). Qed.

Lemma inner_opp {V : NormedModule R_AbsRing} {ip : InnerProduct V} (u v : V) : ⟨opp u, v⟩ = - ⟨u, v⟩.
Proof.
  replace (opp u) with ((-1) [*] u) by vector.
  rewrite inner_scal; ring.
Qed.

Lemma inner_opp_r {V : NormedModule R_AbsRing} {ip : InnerProduct V} (u v : V) : ⟨u, opp v⟩ = - ⟨u, v⟩.
Proof. now rewrite inner_sym, inner_opp, (inner_sym v). Qed.

Lemma inner_zero {V : NormedModule R_AbsRing} {ip : InnerProduct V} (v : V) : ⟨zero, v⟩ = 0.
Proof.
  replace (zero : V) with (0 [*] v) by vector.
  rewrite inner_scal; ring.
Qed.

(** [inner_expand] multiplies out every inner product of sums. *)
Ltac inner_expand :=
  unfold minus;
  repeat rewrite ?inner_plus, ?inner_plus_r, ?inner_scal, ?inner_scal_r, ?inner_opp, ?inner_opp_r.

Lemma inner_ge_0 {V : NormedModule R_AbsRing} {ip : InnerProduct V} (u : V) : 0 <= ⟨u, u⟩.
Proof. rewrite inner_norm; apply pow2_ge_0. Qed.

(** ||u + a v||^2, the expansion behind every estimate here. *)
Lemma norm_plus_scal_sqr {V : NormedModule R_AbsRing} {ip : InnerProduct V} (u v : V) (a : R) :
  norm (u [+] a [*] v) ^ 2 = norm u ^ 2 + 2 * a * ⟨u, v⟩ + a ^ 2 * norm v ^ 2.
Proof.
  rewrite <- !inner_norm; inner_expand; rewrite (inner_sym v u); ring.
Qed.

Lemma cauchy_schwarz {V : NormedModule R_AbsRing} {ip : InnerProduct V} (u v : V) :
  Rabs ⟨u, v⟩ <= norm u * norm v.
Proof.
  assert (Hu := norm_ge_0 u); assert (Hv := norm_ge_0 v).
  destruct (Req_dec (norm v) 0) as [E|E].
  - apply norm_eq_zero in E; subst v.
    rewrite inner_sym, inner_zero, Rabs_R0; now apply Rmult_le_pos.
  - assert (H := pow2_ge_0 (norm (u [+] (- (⟨u, v⟩ / norm v ^ 2)) [*] v))).
    rewrite norm_plus_scal_sqr in H.
    replace (norm u ^ 2 + 2 * - (⟨u, v⟩ / norm v ^ 2) * ⟨u, v⟩ + (- (⟨u, v⟩ / norm v ^ 2)) ^ 2 * norm v ^ 2)
      with ((norm u ^ 2 * norm v ^ 2 - ⟨u, v⟩ ^ 2) / norm v ^ 2) in H by (field; exact E).
    assert (Hv2 : 0 < norm v ^ 2) by (apply pow_lt; lra).
    assert (H2 : ⟨u, v⟩ ^ 2 <= (norm u * norm v) ^ 2).
    { apply Rmult_le_compat_r with (r := norm v ^ 2) in H; [|lra].
      unfold Rdiv in H; rewrite Rmult_assoc, Rinv_l in H by lra; lra. }
    rewrite <- (Rabs_pos_eq (norm u * norm v)) by now apply Rmult_le_pos.
    apply Rsqr_le_abs_0; unfold Rsqr; lra.
Qed.

Lemma inner_le_norm {V : NormedModule R_AbsRing} {ip : InnerProduct V} (u v : V) : ⟨u, v⟩ <= norm u * norm v.
Proof. apply Rle_trans with (1 := Rle_abs _), cauchy_schwarz. Qed.

(** * Instances: R and products, hence every R^d *)

#[export] Instance R_InnerProduct : InnerProduct R_NormedModule.
Proof.
  refine {| inner := fun u v : R => u * v |}.
  - intros u v; apply Rmult_comm.
  - intros u v w; apply Rmult_plus_distr_r.
  - intros a u v; apply Rmult_assoc.
  - intros u; change (norm u) with (Rabs u); rewrite <- Rsqr_pow2, <- Rsqr_abs; reflexivity.
Defined.

#[export] Instance prod_InnerProduct (U V : NormedModule R_AbsRing) (p : InnerProduct U) (q : InnerProduct V) :
  InnerProduct (prod_NormedModule R_AbsRing U V).
Proof.
  refine {| inner := fun u v : U * V => ⟨fst u, fst v⟩ + ⟨snd u, snd v⟩ |}.
  - intros u v; now rewrite (inner_sym (fst u)), (inner_sym (snd u)).
  - intros [u u'] [v v'] [w w'].
    change (⟨u [+] v, w⟩ + ⟨u' [+] v', w'⟩ = ⟨u, w⟩ + ⟨u', w'⟩ + (⟨v, w⟩ + ⟨v', w'⟩)).
    rewrite !inner_plus; ring.
  - intros a [u u'] [v v'].
    change (⟨a [*] u, v⟩ + ⟨a [*] u', v'⟩ = a * (⟨u, v⟩ + ⟨u', v'⟩)).
    rewrite !inner_scal; ring.
  - intros [u u']; simpl fst; simpl snd; rewrite !inner_norm.
    change (norm (u, u')) with (sqrt (norm u ^ 2 + norm u' ^ 2)).
    rewrite pow2_sqrt; [reflexivity|]; apply Rplus_le_le_0_compat; apply pow2_ge_0.
Defined.
